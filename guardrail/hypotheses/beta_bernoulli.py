"""`beta-bernoulli`: an unknown rate of a Boolean outcome for each category, with Beta priors.

Source: Waudby-Smith and Ramdas 2020, prior-posterior ratio; see `bounds.beta_interval`.

All categories at once. With K categories each interval is taken at level delta / K, so by the
union bound all K intervals hold at all times together with probability 1 - delta, however the
categories are chosen. The one joint ratio set of all rates would also be valid at level delta,
but its projection onto one category is useless: every other category's rate is then free to
take its best-fitting value, and the fit it gains, about half a log of its count each, is charged
to this category's interval. With K = 1 the two are the same set.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.bounds.beta_interval import ratio_interval
from guardrail.domain import BooleanHarm, HarmEvent
from guardrail.errors import InvalidInput
from guardrail.hypotheses.base import Row
from guardrail.policy.schema import BetaBernoulli
from guardrail.policy.schema_base import CategoryCount, CategoryKey

_UP = 1.0 + 2.0**-50
"""Covers the rounding of 1 - rate and of a division."""


class BetaBernoulliFamily:
    """K independent Bernoulli rates. A row is [index of the category].

    Arrays of a state: rates, float64[K, 4], with the columns successes, failures, lower, upper;
    refuted, bool[]. The ends lower and upper contain the rates that are plausible now; they are
    0 and 1 where no level was given. With `running` they are intersected over time, and crossing
    ends refute the class. One array, because the compiler updates a single one in place.
    """

    name = "beta-bernoulli"
    row_length = 1
    parameter_names = ("rate", "posterior_mean", "successes", "failures")

    def __init__(self, categories: Sequence[CategoryKey] | int | None, a: float, b: float, harm: HarmEvent) -> None:
        """A class of rates.

        Args:
            categories: names, a number N for 0..N-1, or None for a single one without a name.
            a: first parameter of every Beta prior.
            b: second parameter of every Beta prior.
            harm: which outcome is the harm.

        :raises ValueError: if categories are missing or doubled, a or b is not a positive finite
            number, or harm is not a Boolean outcome.
        """
        if not isinstance(harm, BooleanHarm):
            raise ValueError("beta-bernoulli has a Boolean outcome; harm must be the outcome or its negation")
        if not (0 < a < np.inf and 0 < b < np.inf):
            raise ValueError(f"a Beta prior needs finite a > 0 and b > 0, got ({a}, {b})")
        self._names = None if categories is None or isinstance(categories, int) else tuple(categories)
        self._index = {(type(name), name): i for i, name in enumerate(self._names or ())}
        self._named = categories is not None
        self.size = categories if isinstance(categories, int) else len(self._names) if self._names is not None else 1
        if self.size < 1 or (self._names is not None and len(self._index) != self.size):
            raise ValueError("beta-bernoulli needs at least one category and no category twice")
        self._a, self._b = float(a), float(b)
        self._harmful = harm.harmful
        self.trace_key: Hashable = (self.name, self.size, self._a, self._b, self._harmful)
        shared = f"delta is shared evenly among {self.size} categories (union bound)"
        self.source_note = shared if self.size > 1 else "the interval of one rate"
        each = "outcomes of one category are independent" if self._named else "outcomes are independent"
        self.assumptions: tuple[str, ...] = (f"{each}, with one fixed rate",)

    @classmethod
    def from_spec(cls, spec: BetaBernoulli, harm: HarmEvent, feature_names: Sequence[str] = ()) -> BetaBernoulliFamily:
        """The family of a policy's specification. Features are not used: the category decides.

        :raises ValueError: if the specification does not make a class (see the constructor).
        """
        del feature_names
        categories = spec.categories
        keys = categories.count if isinstance(categories, CategoryCount) else categories
        return cls(keys, spec.prior.a, spec.prior.b, harm)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The row of one category, float64[1].

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the category is not of the class.
        """
        del features
        index: int | None
        if not self._named:
            index = 0 if category is None else None
        elif self._names is not None:
            index = self._index.get((type(category), category))  # type: ignore[arg-type]
        else:
            index = category if type(category) is int and 0 <= category < self.size else None
        if index is None:
            shown = repr(category) if len(repr(category)) <= 80 else repr(category)[:77] + "..."
            raise InvalidInput(f"{shown} is not a category of this policy", "UNKNOWN_CATEGORY")
        return np.array([index], dtype=np.float64)

    def check_rule(self, delta: float | None, running: bool) -> None:
        """Every rule is supported."""

    def initial(self) -> dict[str, npt.NDArray[Any]]:
        """The state before any observation."""
        rates = np.tile(np.array([0.0, 0.0, 0.0, 1.0]), (self.size, 1))
        return {"rates": rates, "refuted": np.zeros((), bool)}

    def accepts(self, row: jax.Array) -> jax.Array:
        """bool[]: whether the row names a category."""
        return (row[0] >= 0) & (row[0] < self.size) & (row[0] == jnp.floor(row[0]))

    def accepts_outcome(self, outcome: jax.Array) -> jax.Array:
        """bool[]: whether the outcome is 0 or 1."""
        return (outcome == 0) | (outcome == 1)

    def update(
        self, delta: float | None, running: bool, arrays: Mapping[str, jax.Array], row: jax.Array, outcome: jax.Array
    ) -> dict[str, jax.Array]:
        """Count one outcome and renew its category's interval; the other categories are not touched."""
        k = row[0].astype(jnp.int32)
        successes, failures, lower, upper = _rate(arrays, k)
        successes, failures = successes + outcome, failures + (1 - outcome)
        if delta is not None:
            low, high = ratio_interval(successes, failures, self._a, self._b, delta / self.size)
            lower, upper = (jnp.maximum(lower, low), jnp.minimum(upper, high)) if running else (low, high)
        new = jnp.stack([successes, failures, lower, upper])[None]
        rates = jax.lax.dynamic_update_slice(arrays["rates"], new, (k, jnp.int32(0)))
        # Read back from the written array: any other use of the ends makes the compiler copy all of it.
        _, _, lower, upper = _rate({"rates": rates}, k)
        return {"rates": rates, "refuted": arrays["refuted"] | ~(lower <= upper)}

    def prepare(self, delta: float | None, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Nothing is left to compute before a check."""
        del delta
        return {"refuted": arrays["refuted"]}

    def evaluate(
        self, delta: float | None, arrays: Mapping[str, jax.Array], prepared: Any, row: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Bound, predictive harm, whether the class is refuted, and the parameters of the rate at the bound."""
        k = row[0].astype(jnp.int32)
        successes, failures, lower, upper = _rate(arrays, k)
        total = successes + failures + (self._a + self._b)
        mean = (successes + self._a) / total
        predictive = mean if self._harmful else (failures + self._b) / total
        rate = upper if self._harmful else lower
        largest = rate if self._harmful else jnp.minimum((1 - rate) * _UP, 1.0)
        value = predictive if delta is None else largest
        return value, predictive, prepared["refuted"], jnp.stack([rate, mean, successes, failures])

    def hypothesis_name(self, row: Row) -> str:
        """How the rate of a row's category is called."""
        k = int(row[0])
        if not self._named:
            return "rate"
        return f"rate[{k if self._names is None else self._names[k]}]"

    def top(self, arrays: Mapping[str, npt.NDArray[Any]], prepared: Any, count: int) -> dict[str, float]:
        """Posterior means of the categories with the most observations."""
        del prepared
        successes, failures = arrays["rates"][:, 0], arrays["rates"][:, 1]
        seen = successes + failures
        chosen = np.argsort(-seen, kind="stable")[:count]
        means = (successes[chosen] + self._a) / (seen[chosen] + self._a + self._b)
        names = [self.hypothesis_name(np.array([k], dtype=np.float64)) for k in chosen]
        return dict(zip(names, means.tolist(), strict=True))

    def names_of_parameters(self, count: int) -> list[str]:
        """The rates of the first categories."""
        return [self.hypothesis_name(np.array([k], dtype=np.float64)) for k in range(min(count, self.size))]

    def parameters(self, delta: float | None, arrays: Mapping[str, jax.Array], prepared: Any) -> jax.Array:
        """float64[K, 4]: moments of each rate's Beta posterior, and the interval that bounds rest on."""
        del delta, prepared
        successes, failures, lower, upper = arrays["rates"].T
        a, b = successes + self._a, failures + self._b
        mean = a / (a + b)
        return jnp.stack([mean, jnp.sqrt(mean * (b / (a + b)) / (a + b + 1)), lower, upper], axis=1)

    def check_arrays(self, arrays: Mapping[str, npt.NDArray[Any]], count: int) -> str | None:
        """What is wrong with a loaded state; None if it is possible."""
        counts, ends = arrays["rates"][:, :2], arrays["rates"][:, 2:]
        if not (np.all(counts >= 0) and np.all(counts == np.floor(counts))):
            return "counts must be whole numbers"
        if float(counts.sum()) != count:
            return "counts do not add up to the number of observations"
        if not (np.all(ends >= 0) and np.all(ends <= 1)):
            return "interval ends must lie in [0, 1]"
        if bool(np.any(ends[:, 0] > ends[:, 1])) != bool(arrays["refuted"]):
            return "the refutation flag does not fit the intervals"
        return None


def _rate(arrays: Mapping[str, jax.Array], k: jax.Array) -> tuple[jax.Array, ...]:
    """Successes, failures, lower and upper end of category k."""
    return tuple(jax.lax.dynamic_slice(arrays["rates"], (k, jnp.int32(0)), (1, 4))[0])
