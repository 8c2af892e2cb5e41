"""A suite for tests of the runner: sums of random numbers, with faults on demand."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
from pydantic import Field

from simulations.runner.suite import Chunk, SuiteConfig


class ToyConfig(SuiteConfig):
    chunks: int = Field(4, ge=1, le=100, description="number of chunks")
    factors: tuple[float, ...] = Field((1.0, 2.0), min_length=1, description="what the sum is multiplied by")
    seed: int = Field(0, ge=0, description="of the numbers")
    marks: str | None = Field(None, description="folder in which each run of a chunk leaves a mark")
    killed_at: int | None = Field(None, description="the chunk whose process is killed the first time")
    interrupted_at: int | None = Field(None, description="the chunk whose process is interrupted the first time")
    terminated_at: int | None = Field(None, description="the chunk whose process is told to end the first time")
    fails_at: int | None = Field(None, description="the chunk that raises an error")
    impossible: bool = Field(False, description="whether the configuration leaves nothing to run")


class ToySuite:
    name = "toy"
    summary = "sums of random numbers"
    config_type = ToyConfig
    work_unit = "numbers"

    def chunks(self, config):
        if config.impossible:
            raise ValueError("nothing is left to run")
        return [Chunk(f"part-{place}", {"place": place}, 10) for place in range(config.chunks)]

    def run(self, config, chunk):
        place = chunk.spec["place"]
        sys.stdout.write("noise of a library\n")
        if config.marks is not None:
            runs = len(list(Path(config.marks).glob(f"{place}.*")))
            (Path(config.marks) / f"{place}.{runs}").touch()
            for when, what in (
                (config.killed_at, signal.SIGKILL),
                (config.interrupted_at, signal.SIGINT),
                (config.terminated_at, signal.SIGTERM),
            ):
                if place == when and runs == 0:
                    os.kill(os.getpid(), what)
        if place == config.fails_at:
            raise ValueError("the sum\nis too hard")
        numbers = np.random.default_rng([config.seed, place]).normal(size=10)
        return {"sum": numbers.sum(), "processors": np.array(os.environ.get("NPROC") == "1")}

    def rows(self, config, results):
        total = np.sum([result["sum"] for result in results])
        return [
            {"factor": factor, "sum": np.float64(factor) * total, "count": np.int64(10 * len(results)), "note": None}
            for factor in config.factors
        ]

    def pictures(self, config, rows):
        return {"toy.png": b"\x89PNG main", "more.txt": b"second"}


SUITE = ToySuite()
