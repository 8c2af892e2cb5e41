"""What every test is held to (the host program's JAX configuration is nobody's to change), and databases for tests."""

import os
import sys

import pytest
from debian import PackageMissing
from postgres import PostgresServer


def _jax_is_64_bit():
    return sys.modules["jax"].config.jax_enable_x64 if "jax" in sys.modules else False


@pytest.fixture(autouse=True)
def jax_configuration_unchanged():
    """Fail a test that leaves JAX's 64-bit mode other than it found it (never imported counts as off)."""
    before = _jax_is_64_bit()
    yield
    assert _jax_is_64_bit() == before, "the test changed the JAX configuration of the process"


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server for this test process, started when the first test wants it."""
    try:
        server = PostgresServer()
    except PackageMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server):
    """The URL of an empty PostgreSQL database, dropped after the test."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
