"""A named table of hypotheses: for each category the rate of a Boolean outcome or a Gaussian outcome."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.domain import BooleanHarm, HarmEvent, IntervalHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.gaussian_harm import interval_harm, interval_score
from guardrail.hypotheses.product_grid import EPSILON, on_cpu
from guardrail.policy.memory_schema import NormalSpec
from guardrail.policy.schema import PRIOR_SUM_TOLERANCE, FiniteTable, TableHypothesis
from guardrail.policy.schema_base import CategoryKey

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from guardrail.hypotheses.base import Arrays, Row


Table = npt.NDArray[np.float64]
"""float64[C, H]: one number for each category and hypothesis."""
T = TypeVar("T")
ONLY_CATEGORY: tuple[CategoryKey | None, ...] = (None,)


class FiniteTableFamily:
    """One row of a table, one hypothesis. A row (encoded input) holds the number of its category.

    Args:
        spec: the table.
        harm: the harm event over the outcome.

    :raises ValueError: if names repeat, priors do not sum to 1, hypotheses differ in kind or in their
        categories, or the kind of outcome does not fit the harm event.
    """

    name = "finite-table"
    row_length = 1
    row_arrays: frozenset[str] = frozenset()

    def __init__(self, spec: FiniteTable, harm: HarmEvent) -> None:
        hypotheses = spec.table
        self._names = tuple(hypothesis.name for hypothesis in hypotheses)
        if len(set(self._names)) < len(self._names):
            raise ValueError("two hypotheses of the table have the same name")
        self._log_prior = log_prior_of([hypothesis.prior for hypothesis in hypotheses])
        self._categories = _categories(hypotheses, spec.category is not None)
        self._place = {(type(category), category): place for place, category in enumerate(self._categories)}
        self.size = self.width = len(hypotheses)
        self._boolean = hypotheses[0].rates is not None
        self._parameters, tables = (
            _rates(hypotheses, self._categories, harm)
            if self._boolean
            else _normals(hypotheses, self._categories, harm)
        )
        self.arrays: Arrays = {name: on_cpu(table) for name, table in tables.items()}
        self.trace_key: Hashable = (self.name, self._boolean, len(self._categories))
        kind = "Boolean outcomes are" if self._boolean else "outcomes are Gaussian and"
        self.assumptions: tuple[str, ...] = (
            f"{kind} independent given the category, with parameters that never change",
        )

    @classmethod
    def from_spec(cls, spec: FiniteTable, harm: HarmEvent, feature_names: tuple[str, ...]) -> FiniteTableFamily:
        """The family that a policy describes.

        :raises ValueError: if the table is inconsistent, does not fit the harm event, or there are features.
        """
        if feature_names:
            raise ValueError(f"{spec.family} has no numeric features, got {', '.join(feature_names)}")
        return cls(spec, harm)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The category's number, float64[1].

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the table has no such category.
        """
        try:
            return np.array([float(self._place[type(category), category])])
        except KeyError:
            raise InvalidInput(f"the table has no category {category!r}", "UNKNOWN_CATEGORY") from None

    def log_prior(self) -> npt.NDArray[np.float64]:
        """float64[H]: log prior masses."""
        return self._log_prior

    def log_likelihood(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[H]: log mass (outcome 0 or 1, else NaN) or log density of the outcome."""
        if self._boolean:
            impossible = jnp.full(self.size, jnp.nan, jnp.float64)
            when_false = jnp.where(outcome == 0.0, of_category(arrays["log_false"], row), impossible)
            return jnp.where(outcome == 1.0, of_category(arrays["log_true"], row), when_false)
        residual = (outcome - of_category(arrays["mean"], row)) / of_category(arrays["sd"], row)
        return -0.5 * residual * residual - of_category(arrays["log_norm"], row)

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: bound on the rounding error of every finite entry of `log_likelihood`."""
        log_size = of_category(arrays["largest_log"], row)
        if self._boolean:
            return 4 * EPSILON * log_size
        largest = jnp.abs(outcome) * of_category(arrays["largest_precision"], row)
        largest = largest + of_category(arrays["largest_mean"], row)
        return 4 * EPSILON * (largest * largest + log_size)

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H]: the harm probability itself."""
        return of_category(arrays["harm"], row)

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[1]: the whole table is one row, and every check looks at it."""
        return jnp.full(1, jnp.inf, jnp.float64)

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """The score, which is the harm probability."""
        return score

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """The hypothesis's name and its parameters, by category."""
        parameters = {}
        for kind, table in self._parameters.items():
            for place, category in enumerate(self._categories):
                parameters[kind if category is None else f"{kind}[{category}]"] = float(table[place, index])
        return self._names[index], parameters


def of_category(table: jax.Array, row: jax.Array) -> jax.Array:
    """The part of float64[C, ...] that belongs to the category; NaN if there is none."""
    count = table.shape[0]
    valid = (row[0] >= 0.0) & (row[0] < count) & (row[0] == jnp.floor(row[0]))
    place = jnp.where(valid, row[0], 0.0).astype(jnp.int32)
    return jnp.where(valid, jax.lax.dynamic_index_in_dim(table, place, keepdims=False), jnp.nan)


def log_prior_of(priors: Sequence[float | None]) -> npt.NDArray[np.float64]:
    """float64[H]: log prior masses of a table's hypotheses; uniform if none is given.

    :raises ValueError: if some are given and some are not, or they do not sum to 1.
    """
    masses = [prior for prior in priors if prior is not None]
    if not masses:
        return np.full(len(priors), -math.log(len(priors)))
    if len(masses) < len(priors):
        raise ValueError("give a prior for every hypothesis or for none")
    total = math.fsum(masses)
    if not abs(total - 1.0) <= PRIOR_SUM_TOLERANCE:
        raise ValueError(f"the hypotheses' priors must sum to 1, got {total:.12g}")
    return np.asarray(np.log(masses) - math.log(total))


def _categories(hypotheses: Sequence[TableHypothesis], declared: bool) -> tuple[CategoryKey | None, ...]:
    """All categories in the order in which they first appear."""
    found: dict[tuple[type, CategoryKey], CategoryKey] = {}
    for hypothesis in hypotheses:
        for values in (hypothesis.rates, hypothesis.normal):
            if isinstance(values, dict):
                found |= {(type(key), key): key for key in values}
    if not declared:
        if found:
            raise ValueError("the table has values per category, so the policy must say what the category is")
        return ONLY_CATEGORY
    if not found:
        raise ValueError("the policy has a category, but no hypothesis of the table names any")
    return tuple(found.values())


def spread(
    name: str, values: dict[CategoryKey, T] | T | None, categories: Sequence[CategoryKey | None], kind: str
) -> list[T]:
    """The value of each category; one value stands for all of them.

    :raises ValueError: if there is none, or a category lacks its value.
    """
    if values is None:
        raise ValueError(f"hypothesis {name} has no {kind}; all hypotheses of a table are of one kind")
    if not isinstance(values, dict):
        return [values] * len(categories)
    missing = [category for category in categories if category not in values]
    if missing:
        raise ValueError(f"hypothesis {name} has no {kind} for category {missing[0]!r}")
    return [values[category] for category in categories if category is not None]


def _rates(
    hypotheses: Sequence[TableHypothesis], categories: Sequence[CategoryKey | None], harm: HarmEvent
) -> tuple[dict[str, Table], dict[str, Table]]:
    """What `describe` shows, and what the kernels read."""
    if not isinstance(harm, BooleanHarm):
        raise ValueError("a table of rates has a Boolean outcome, so harm must be one of its two values")
    if any(hypothesis.normal is not None for hypothesis in hypotheses):
        raise ValueError("all hypotheses of a table are of one kind: rates or normal")
    rates = np.array([spread(h.name, h.rates, categories, "rates") for h in hypotheses], np.float64).T
    with np.errstate(divide="ignore"):
        log_true, log_false = np.log(rates), np.log1p(-rates)
    logs = np.abs(np.concatenate([log_true, log_false], axis=1))
    return {"rate": rates}, {
        "log_true": log_true,
        "log_false": log_false,
        "harm": rates if harm.harmful else _complement_rounded_up(rates),
        "largest_log": np.max(logs, axis=1, initial=0.0, where=np.isfinite(logs)),
    }


def _complement_rounded_up(rates: Table) -> Table:
    complement = 1.0 - rates
    # Both differences are exact (Knuth's two-sum), so their sum has the sign of the rounding error.
    removed = 1.0 - complement
    rounded_down = (1.0 - (complement + removed)) + (removed - rates) > 0.0
    return np.asarray(np.where(rounded_down, np.nextafter(complement, 1.0), complement))


def _normals(
    hypotheses: Sequence[TableHypothesis], categories: Sequence[CategoryKey | None], harm: HarmEvent
) -> tuple[dict[str, Table], dict[str, Table]]:
    """What `describe` shows, and what the kernels read."""
    if not isinstance(harm, IntervalHarm):
        raise ValueError("a table of Gaussian outcomes has a numeric outcome, so harm must be a range of numbers")
    normals: list[list[NormalSpec]] = [spread(h.name, h.normal, categories, "normal") for h in hypotheses]
    mean = np.array([[normal.mean for normal in row] for row in normals]).T
    sd = np.array([[normal.sd for normal in row] for row in normals]).T
    log_norm = np.log(sd) + 0.5 * math.log(2 * math.pi)
    return {"mean": mean, "sd": sd}, {
        "mean": mean,
        "sd": sd,
        "log_norm": log_norm,
        "harm": _normal_harm(harm, mean, sd),
        "largest_log": np.abs(np.log(sd)).max(axis=1) + 1.0,
        "largest_precision": (1.0 / sd).max(axis=1),
        "largest_mean": (np.abs(mean) / sd).max(axis=1),
    }


def _normal_harm(event: IntervalHarm, mean: Table, sd: Table) -> Table:
    """Harm of each category and hypothesis, rounded up."""

    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(_harm_kernel(event)(mean.reshape(-1), sd.reshape(-1))).reshape(mean.shape)


@functools.lru_cache(maxsize=32)
def _harm_kernel(event: IntervalHarm) -> Callable[..., jax.Array]:
    def harm(mean: jax.Array, sd: jax.Array) -> jax.Array:
        return interval_harm(event, sd, interval_score(event, mean, jnp.zeros(1), 2 * EPSILON * jnp.abs(mean)))

    return jax.jit(harm)
