"""What every test is held to: the host program's JAX configuration is nobody's to change."""

import sys

import pytest


def _jax_is_64_bit():
    return sys.modules["jax"].config.jax_enable_x64 if "jax" in sys.modules else False


@pytest.fixture(autouse=True)
def jax_configuration_unchanged():
    """Fail a test that leaves JAX's 64-bit mode other than it found it (never imported counts as off)."""
    before = _jax_is_64_bit()
    yield
    assert _jax_is_64_bit() == before, "the test changed the JAX configuration of the process"
