"""A suite for tests of the runner: sums of random numbers, with faults on demand."""

import os
import signal
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
    fails_at: int | None = Field(None, description="the chunk that raises an error")


class ToySuite:
    name = "toy"
    summary = "sums of random numbers"
    config_type = ToyConfig
    work_unit = "numbers"

    def chunks(self, config):
        return [Chunk(f"part-{place}", {"place": place}, 10) for place in range(config.chunks)]

    def run(self, config, chunk):
        place = chunk.spec["place"]
        if config.marks is not None:
            runs = len(list(Path(config.marks).glob(f"{place}.*")))
            (Path(config.marks) / f"{place}.{runs}").touch()
            if place == config.killed_at and runs == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if place == config.fails_at:
            raise ValueError("the sum\nis too hard")
        return {"sum": np.random.default_rng([config.seed, place]).normal(size=10).sum(keepdims=True)}

    def rows(self, config, results):
        total = float(np.sum([result["sum"] for result in results]))
        return [
            {"factor": factor, "sum": factor * total, "seed": config.seed, "note": None} for factor in config.factors
        ]

    def pictures(self, config, rows):
        return {"toy.png": b"\x89PNG main", "more.txt": b"second"}


SUITE = ToySuite()
