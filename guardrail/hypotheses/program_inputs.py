"""How a program's inputs lie in a row: features first, in the policy's order, then the category's index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import InvalidInput
from guardrail.policy.program_checks import category_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guardrail.hypotheses.base import Row
    from guardrail.policy.program_schema import ProgramSpec

CATEGORY = "category"
"""Under this name a program finds the category's index."""


class ProgramInputs:
    """Rows of a program: float64[F], F the number of features and one more if there is a category.

    Args:
        features: name and length of each feature, in the policy's order; length None for a single number.
        spec: the policy's hypotheses.
    """

    def __init__(self, features: Sequence[tuple[str, int | None]], spec: ProgramSpec) -> None:
        self._places: list[tuple[str, int | slice]] = []
        place = 0
        for name, length in features:
            self._places.append((name, place if length is None else slice(place, place + length)))
            place += 1 if length is None else length
        self._spec, self.has_category = spec, spec.category is not None
        self.row_length = place + self.has_category

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """One input as float64[F].

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the category is not of the class.
        """
        if not self.has_category:
            return np.asarray(features, np.float64)
        index = category_index(self._spec, category)
        if index is None:
            shown = repr(category) if len(repr(category)) <= 80 else repr(category)[:77] + "..."
            raise InvalidInput(f"{shown} is not a category of this policy", "UNKNOWN_CATEGORY")
        return np.array([*features, index], np.float64)

    def named(self, row: Any) -> Iterator[tuple[str, Any]]:
        """The features of a row by name: numbers, and for lists arrays; without the category.

        Args:
            row: [F], an array of any library.
        """
        for name, place in self._places:
            yield name, row[place]

    def examples(self) -> npt.NDArray[np.float64]:
        """float64[E, F], E >= 1: the policy's example inputs; every feature 1 and the first category if it has none."""
        examples = self._spec.prior_predictive.inputs
        if not examples:
            row = np.ones((1, self.row_length))
            if self.has_category:
                row[:, -1] = 0.0
            return row
        return np.stack([self._example(example) for example in examples])

    def _example(self, example: Any) -> Row:
        numbers = [float(number) for name, _ in self._places for number in np.atleast_1d(example[name])]
        return self.encode(numbers, example.get(CATEGORY))
