"""`numpyro` with `use: sampled` or `grid`: a finite class made from a NumPyro program.

`sampled`: hypothesis number b * 1000 + i is the i-th draw from the prior with key fold_in(seed, b). `grid`: the points
of a product of midpoint quantiles (i + 1/2) / n, pushed through the latent sites' conditional quantile functions in
the model's order, so that dependent priors are respected. Both have a uniform prior, so the prior-posterior ratio is
exact over the class, and its theorem holds relative to the class: a truth between the draws is outside of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from guardrail.domain import BooleanHarm, HarmEvent, ModelHarm
from guardrail.hypotheses import program_harm
from guardrail.hypotheses.product_grid import on_cpu
from guardrail.hypotheses.program_model import ProgramModel
from guardrail.hypotheses.program_probe import verify
from guardrail.hypotheses.program_words import (
    ARITHMETIC,
    INDEPENDENT,
    LIKELIHOOD_ROUNDING,
    MAX_SHOWN_PARAMETERS,
    STORED_BYTES,
    class_in_words,
)
from guardrail.policy.program_schema import (
    DRAWS_BLOCK,
    MAX_GRID_SITES,
    MAX_PROGRAM_HYPOTHESES,
    GridUse,
    ProgramSpec,
    SampledUse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from guardrail.hypotheses.base import Arrays, Row
    from guardrail.hypotheses.program_inputs import ProgramInputs
    from guardrail.hypotheses.program_model import Latents, Outcome

_WIDEST_GRID_ROW = 4_096
_BLOCK = "block"


class ProgramFamily:
    """A finite class of hypotheses from a NumPyro program; see the module.

    Args:
        model: the user's function.
        name: how the policy calls it.
        spec: the policy's hypotheses, with use sampled or grid.
        inputs: how rows hold the program's inputs.
        outcome: name of the outcome's site.
        harm: the harm event.

    :raises ProgramError: if the program is no hypothesis class.
    """

    name = "numpyro"

    def __init__(
        self,
        model: Callable[..., Any],
        name: str,
        spec: ProgramSpec,
        inputs: ProgramInputs,
        outcome: str,
        harm: HarmEvent,
    ) -> None:
        self.model = ProgramModel(model, name, inputs, outcome, harm)
        self._spec, self._inputs, self._harm = spec, inputs, harm
        self.row_length = inputs.row_length
        with jax.enable_x64(True):
            self._example = jnp.asarray(inputs.examples()[0])
            self._seed = jax.random.key(getattr(spec.use, "seed", 0), impl="threefry2x32")
            self._check_outcome(self.model.inspect(self._seed, self._example))
            self._levels = self._grid_levels() if isinstance(spec.use, GridUse) else {}
            self.size, self.width = self._shape()
            self.arrays: Arrays = self._arrays()
        self.row_arrays = frozenset(self.arrays) - {"limits"}
        self.trace_key: Hashable = (self.name, object())
        self.assumptions: tuple[str, ...] = (
            class_in_words(self.size, name, getattr(spec.use, "seed", None)),
            INDEPENDENT,
            ARITHMETIC,
        )

    # ------------------------------------------------------------ the family's functions

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Features, and the category's index.

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the category is not of the class.
        """
        return self._inputs.encode(features, category)

    def log_prior(self) -> npt.NDArray[np.float64]:
        """float64[H]: -log H."""
        return np.full(self.size, -math.log(self.size))

    def log_likelihood(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[H]: log density of the outcome under each hypothesis; of a slice of the row arrays, of that slice."""
        return self._of_each(arrays, lambda latents: self.model.log_probability(latents, row, outcome))

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: what is allowed to the program's arithmetic; an assumption, not a proof."""
        return jnp.asarray(LIKELIHOOD_ROUNDING)

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H]: harm probabilities, raised by their rounding; of a slice of the row arrays, of that slice."""
        simulation = None
        if "limits" in arrays:
            simulation = (jax.random.fold_in(self._seed, 2**32 - 1), arrays["limits"])
        return self._of_each(arrays, lambda latents: self.model.harm_probability(latents, row, simulation))

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H / width]: inf, since nothing is known of a program without running it."""
        return jnp.full(next(iter(arrays[name] for name in self.row_arrays)).shape[0], jnp.inf, jnp.float64)

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """The score itself."""
        return score

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """The draw's or point's number, and its latent values (of long vectors, the first ones)."""
        latents = self.latents_of(index)
        shown = [
            (site if value.ndim == 0 else f"{site}[{','.join(map(str, place))}]", float(value[place]))
            for site, value in latents.items()
            for place in np.ndindex(value.shape)
        ]
        kind = "draw" if isinstance(self._spec.use, SampledUse) else "point"
        return f"{kind} {index}", dict(shown[:MAX_SHOWN_PARAMETERS])

    def latents_of(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """The latent values of one hypothesis."""
        block, place = divmod(index, self.width)
        with jax.enable_x64(True):
            if _BLOCK in self.arrays:
                values = self._make_block(jnp.asarray(block, jnp.uint32))
            else:
                values = {site: self.arrays[site][block] for site in self.model.sites}
            return {site: np.asarray(value[place]) for site, value in values.items()}

    # ------------------------------------------------------------ looking at it

    def verify(self) -> str:
        """A digest of the program's numbers, after checks that they are what they must be; see `program_probe`.

        :raises ProgramError: if they are not.
        """
        return verify(self.model, self._seed, self.examples())

    def examples(self) -> npt.NDArray[np.float64]:
        """float64[E, F]: the policy's example inputs."""
        return self._inputs.examples()

    def prior_predictive(self, row: Row, draws: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Outcomes, their log-likelihoods and harms of draws from the prior at one input, float64[draws] each."""
        limits = self.arrays.get("limits")
        simulation = None if limits is None else (self._seed, limits)

        def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            latents, outcome = self.model.prior_draw(key, encoded)
            value = jnp.asarray(outcome, jnp.float64)
            density = self.model.log_probability(latents, encoded, value)
            return value, density, self.model.harm_probability(latents, encoded, simulation)

        with jax.enable_x64(True):
            encoded = jnp.asarray(row)
            found: tuple[jax.Array, jax.Array, jax.Array] = jax.jit(jax.vmap(one))(jax.random.split(self._seed, draws))
        return found

    # ------------------------------------------------------------ the class

    def _of_each(self, arrays: Arrays, function: Callable[[Latents], jax.Array]) -> jax.Array:
        def of_block(row: Any) -> jax.Array:
            latents = self._make_block(row[_BLOCK]) if _BLOCK in row else row
            return jax.vmap(function)(latents)

        rows = {name: value for name, value in arrays.items() if name in self.row_arrays}
        # Block after block: memory is bounded by one block, however large the class.
        values: jax.Array = lax.map(of_block, rows)
        return values.reshape(-1)

    def _make_block(self, block: jax.Array) -> Latents:
        """The latent values of hypotheses block * width ... (block + 1) * width - 1, each [width, ...]."""
        if isinstance(self._spec.use, SampledUse):
            keys = jax.random.split(jax.random.fold_in(self._seed, block), self.width)
            drawn: Latents = jax.vmap(lambda key: self._checked_draw(key))(keys)
            return drawn
        sizes = list(self._levels.values())
        index = block.astype(jnp.int64) * self.width + jnp.arange(self.width)
        places = jnp.unravel_index(index, sizes)
        levels = {
            site: (place + 0.5) / count for place, (site, count) in zip(places, self._levels.items(), strict=True)
        }
        return jax.vmap(lambda level: self.model.prior_quantile(level, self._example))(levels)

    def _checked_draw(self, key: jax.Array) -> Latents:
        latents, _ = self.model.prior_draw(key, self._example)
        self.model.check_sites({site: {"type": "sample", "value": value} for site, value in latents.items()})
        return latents

    def _shape(self) -> tuple[int, int]:
        if isinstance(self._spec.use, SampledUse):
            return self._spec.use.draws, DRAWS_BLOCK
        sizes, width = list(self._levels.values()), 1
        for count in reversed(sizes):
            if width > 1 and width * count > _WIDEST_GRID_ROW:
                break
            width *= count
        return math.prod(sizes), width

    def _arrays(self) -> Arrays:
        rows = self.size // self.width
        arrays = {_BLOCK: on_cpu(np.arange(rows, dtype=np.uint32))}
        one = sum(math.prod(site.shape) * np.dtype(site.dtype).itemsize for site in self.model.sites.values())
        if one * self.size <= STORED_BYTES:
            blocks = jax.jit(lambda numbers: lax.map(self._make_block, numbers))(arrays[_BLOCK])
            arrays = {site: blocks[site] for site in self.model.sites}
        if self._spec.monte_carlo is not None:
            arrays["limits"] = on_cpu(program_harm.confidence_limits(self._spec.monte_carlo))
        return arrays

    def _grid_levels(self) -> dict[str, int]:
        use, sites = self._spec.use, self.model.sites
        assert isinstance(use, GridUse)
        for name, site in sites.items():
            if site.shape != ():
                raise self.model.error(
                    f"latent site {name!r} is an array of shape {list(site.shape)}; a grid takes single numbers, "
                    "use: {kind: sampled} takes any"
                )
        if len(sites) > MAX_GRID_SITES:
            raise self.model.error(
                f"has {len(sites)} latent sites ({', '.join(sites)}), a grid takes at most {MAX_GRID_SITES}; "
                "use: {kind: sampled} takes any number"
            )
        if isinstance(use.points, dict) and use.points.keys() != sites.keys():
            raise self.model.error(
                f"has the latent sites {', '.join(sites)}; use.points names {', '.join(sorted(use.points))}"
            )
        levels = {name: use.points[name] if isinstance(use.points, dict) else use.points for name in sites}
        if math.prod(levels.values()) > MAX_PROGRAM_HYPOTHESES:
            raise self.model.error(
                f"makes a grid of {math.prod(levels.values())} hypotheses, at most {MAX_PROGRAM_HYPOTHESES} are "
                "allowed; use fewer points"
            )
        return levels

    def _check_outcome(self, kind: Outcome) -> None:
        if isinstance(self._harm, ModelHarm):
            if self._spec.monte_carlo is not None:
                raise self.model.error("says the harm itself, so monte_carlo has no effect; leave it out")
            return
        if isinstance(self._harm, BooleanHarm) and not kind.boolean:
            raise self.model.error(
                f"has a bool for its outcome, but site {self.model.outcome!r} is not distributed over 0 and 1 only; "
                "use a Bernoulli distribution"
            )
        exact = isinstance(self._harm, BooleanHarm) or kind.has_cdf
        if not exact and self._spec.monte_carlo is None:
            raise self.model.error(
                f"has an outcome {self.model.outcome!r} whose distribution has no cdf, so its harm probability has no "
                "closed form; use another distribution, a deterministic site 'harm', or hypotheses.monte_carlo: "
                "{samples, delta} for an estimate"
            )
        if exact and self._spec.monte_carlo is not None:
            raise self.model.error(
                "has a closed form of its harm probability, so monte_carlo has no effect; leave it out"
            )
