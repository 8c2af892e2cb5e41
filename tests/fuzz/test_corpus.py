"""Every kept input of the fuzz targets: seeds of all kinds, and what once broke something."""

from pathlib import Path

import pytest
from fuzz_targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("target", TARGETS)
def test_no_kept_input_breaks_anything(target):
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) >= 5
    for file in inputs:
        try:
            TARGETS[target](file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file.name} breaks the target {target}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_no_torn_or_flipped_input_breaks_anything(target):
    for file in sorted((CORPUS / target).iterdir())[:20]:
        data = file.read_bytes()
        for place in range(1, len(data), max(1, len(data) // 10)):
            for changed in (data[:place], data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]):
                try:
                    TARGETS[target](changed)
                except Exception as error:
                    raise AssertionError(f"{changed!r} breaks the target {target}") from error
