"""Chunks and their results put together."""

import math

import numpy as np
import pytest

from simulations.runner.errors import BadConfiguration
from simulations.runner.execute import Local, execute
from simulations.runner.progress import Silent
from simulations.runner.suite import Chunk, SuiteConfig


class Squares:
    name, summary, config_type, work_unit = "squares", "", SuiteConfig, "numbers"

    def __init__(self, names):
        self.names = names

    def chunks(self, config):
        return [Chunk(name, {"number": number}, 1) for number, name in enumerate(self.names)]

    def run(self, config, chunk):
        return {"square": np.array(chunk.spec["number"] ** 2)}

    def rows(self, config, results):
        return [{"square": result["square"][()], "mean": np.float64(math.nan)} for result in results]

    def pictures(self, config, rows):
        return {}


class Backwards:
    """Chunks finish in another order."""

    def results(self, suite, config, chunks):
        for place in reversed(range(len(chunks))):
            yield place, suite.run(config, chunks[place])


def test_the_order_in_which_chunks_finish_changes_nothing():
    suite = Squares(["a", "b", "c"])
    here = execute(suite, SuiteConfig(), Local(), None, Silent())
    there = execute(suite, SuiteConfig(), Backwards(), None, Silent())
    assert [row["square"] for row in there] == [0, 1, 4]
    assert repr(here) == repr(there)
    assert {type(value) for row in here for value in row.values()} == {int, float}


@pytest.mark.parametrize("names", [[], ["a", "a"], ["../a"], ["a b"], [""]])
def test_chunks_need_names_of_their_own(names):
    with pytest.raises(ValueError, match="breaks its contract"):
        execute(Squares(names), SuiteConfig(), Local(), None, Silent())


def test_a_suite_may_refuse_a_configuration_that_leaves_nothing():
    class Picky(Squares):
        def chunks(self, config):
            raise ValueError("no case is left;\nchoose other bounds")

    with pytest.raises(BadConfiguration, match=r"^no case is left; choose other bounds$"):
        execute(Picky([]), SuiteConfig(), Local(), None, Silent())
