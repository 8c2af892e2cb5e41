"""Devices, and the cache of compiled programs."""

import subprocess
import sys

import jax
import pytest

from simulations.runner.device import on_device
from simulations.runner.errors import NoDevice

COMPILES = """
import jax
import simulations.runner.command, simulations.runner.device
assert jax.config.jax_compilation_cache_dir is None, "importing sets nothing"
simulations.runner.device.prepare_process("cpu")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
with simulations.runner.device.on_device("cpu"):
    print(jax.jit(lambda x: x * 2 + 1)(1.0))
"""


def test_the_cpu_is_always_there_and_another_device_may_not_be():
    with on_device("cpu"):
        assert jax.numpy.zeros(1).device.platform == "cpu"
    if jax.default_backend() == "cpu":
        with pytest.raises(NoDevice, match="use --device cpu"), on_device("gpu"):
            raise AssertionError("it has no GPU")


def test_compiled_programs_are_kept_in_the_users_cache(environment, tmp_path):
    ran = subprocess.run([sys.executable, "-c", COMPILES], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "3.0\n"), ran.stderr
    assert list((tmp_path / "cache" / "guardrail" / "simulations").iterdir())


def test_a_cache_that_cannot_be_written_is_no_failure(environment):
    environment["XDG_CACHE_HOME"] = "/proc/nowhere"
    ran = subprocess.run([sys.executable, "-c", COMPILES], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "3.0\n"), ran.stderr
