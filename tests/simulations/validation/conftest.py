"""A suite run in the test's own process, as the runner runs it."""

import functools

import pytest

from simulations.validation.config import ValidateConfig
from simulations.validation.suite import SUITE


def run(**parameters):
    config = ValidateConfig(**parameters)
    return SUITE.rows(config, [SUITE.run(config, chunk) for chunk in SUITE.chunks(config)])


@pytest.fixture(scope="session")
def table():
    """The rows of a configuration; each is run once in a session."""
    return functools.cache(run)
