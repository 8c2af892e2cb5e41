"""What a family of hypotheses must provide.

A family is one shape of hypothesis class: it knows the outcome's likelihood, the harm
probability, and how to tell a person about one hypothesis. Every family encodes an input
(the policy's features, or its category) as one float64 row of fixed length, so that the
kernels below it see arrays only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
import numpy.typing as npt

Row: TypeAlias = npt.NDArray[np.float64]
"""float64[F]: one encoded input."""

Arrays: TypeAlias = Mapping[str, jax.Array]
"""A family's large arrays, passed to kernels as an argument so that they are not baked into programs."""


class Family(Protocol):
    """What enumerated and conjugate families share."""

    name: str
    """The family's name in a policy file."""
    row_length: int
    """F, the length of an encoded row."""
    assumptions: tuple[str, ...]
    """What the class assumes of the world, in words, for the guarantee."""

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Encode one input as float64[F].

        Args:
            features: the policy's numeric features, flattened, in the policy's order; all finite.
            category: the policy's category; None when the family has none.

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the category is not of the class.
        """
        ...


class EnumeratedFamily(Family, Protocol):
    """A finite class whose H hypotheses are scored one by one by the enumerated oracle.

    `log_likelihood`, `log_likelihood_rounding`, `harm_score` and `harm_from_score` are pure JAX
    functions, traced under 64-bit mode; they read large arrays from `arrays` only, never from `self`.

    Harm is a non-decreasing function of a cheap score, so the largest harm over any set of
    hypotheses is `harm_from_score` of the largest score over that set.

    The class lies as rows of `width` hypotheses; its results are in that order, row after row.
    """

    size: int
    """H, the number of hypotheses."""
    width: int
    """A divisor of H, the length of a row: the shape in which the family's own arrays lie is fast."""
    arrays: Arrays
    """The family's large arrays (may be empty), on the CPU."""
    row_arrays: frozenset[str]
    """Names of those arrays that have one entry along their first axis for each row of the class, H / width in all.
    The functions below may get a part of them, some consecutive rows, and then return that part of their result."""
    trace_key: Hashable
    """Equal only for families whose JAX functions do the same to equal `arrays`: they share compiled programs."""

    def log_prior(self) -> npt.NDArray[np.float64]:
        """float64[H]: log prior masses; they sum to one, every mass is positive."""
        ...

    def log_likelihood(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[H]: log density or log mass of the outcome under each hypothesis; -inf where impossible."""
        ...

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: upper bound on the absolute rounding error of every finite entry of `log_likelihood`."""
        ...

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H]: a score whose order is the order of harm; rounding may only raise it."""
        ...

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H / width]: at least the largest `harm_score` of each row of the class; inf where it is not known.

        Cheap, without a look at every hypothesis: it decides which rows need one.
        """
        ...

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """Harm probability in [0, 1] of each score; non-decreasing; any shape, float64 or float32.

        In float64 it is never below the exact probability. float32 is for numbers without a promise.
        """
        ...

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """Name and parameters of one hypothesis, for a person to read."""
        ...


class Memory(NamedTuple):
    """What the hypotheses of a world with memory remember of the observations so far.

    Attributes:
        log_belief: float64[H, S], log probability of each hidden state given the past, under each hypothesis.
        rounding: float64[], nats by which rounding may have moved any of them.
    """

    log_belief: jax.Array
    rounding: jax.Array


class HistoryFamily(Family, Protocol):
    """A finite class of H hypotheses whose likelihood of an outcome depends on all observations before it.

    `step` and `harm` are pure JAX functions, traced under 64-bit mode; they read large arrays from `arrays` only.
    """

    size: int
    """H, the number of hypotheses."""
    arrays: Arrays
    """The family's large arrays, float64, on the CPU."""
    trace_key: Hashable
    """Equal only for families whose JAX functions do the same to equal `arrays`: they share compiled programs."""

    def log_prior(self) -> npt.NDArray[np.float64]:
        """float64[H]: log prior masses; they sum to one, every mass is positive."""
        ...

    def initial_memory(self) -> Memory:
        """The memory before any observation."""
        ...

    def step(
        self, arrays: Arrays, memory: Memory, row: jax.Array, outcome: jax.Array
    ) -> tuple[Memory, jax.Array, jax.Array]:
        """Take up one observation.

        Returns:
            The memory after it; float64[H], the log likelihood of the outcome given the past (-inf where impossible);
            float64[], most nats by which this step's rounding moved a finite entry of it, that of the memory before
            not counted again.
        """
        ...

    def harm(self, arrays: Arrays, memory: Memory, row: jax.Array) -> jax.Array:
        """float64[H]: probability of harm at the next step given the past, never rounded down."""
        ...

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """Name and parameters of one hypothesis, for a person to read."""
        ...


@runtime_checkable
class SufficientStatistics(Protocol):
    """What an enumerated family has whose observations add up to a few numbers.

    The posterior is then a function of their sums: a log of any length costs one pass over the class, and a
    snapshot is as short as the sums.
    """

    statistics_length: int
    """S, the number of sums."""

    def statistics(self, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[S]: what one observation adds to the sums."""
        ...

    def prepare(self, sums: jax.Array) -> Arrays:
        """What every hypothesis's log likelihood needs of float64[S], the sums.

        With a key `rounding`, float64[]: most by which rounding, in the sums, in what is prepared and in
        `log_likelihood_of`, may move the difference of two hypotheses' log likelihoods.
        """
        ...

    def log_likelihood_of(self, arrays: Arrays, prepared: Arrays) -> jax.Array:
        """float64[H]: log likelihood of all observations together, up to a constant; of parts of a class alike."""
        ...
