"""`pyro` with `use: sampled`: a finite class of draws from a Pyro program. The only module that imports torch.

The enumerated kernels are JAX programs; they get log-likelihoods and harms of all hypotheses from torch by a
callback, which runs the model for all draws at once (torch.func.vmap), or one by one where that cannot be done.
Unlike a NumPyro program this one runs its Python at every call, so every call checks its sites and, on a few
draws, that it gives the same numbers again.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pyro
import torch

from guardrail.domain import BooleanHarm, HarmEvent, IntervalHarm, ModelHarm
from guardrail.hypotheses.product_grid import on_cpu
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.hypotheses.program_harm import MARGIN
from guardrail.hypotheses.program_inputs import CATEGORY
from guardrail.hypotheses.program_words import (
    ARITHMETIC,
    INDEPENDENT,
    LIKELIHOOD_ROUNDING,
    MAX_SHOWN_PARAMETERS,
    STORED_BYTES,
    class_in_words,
)
from guardrail.policy.program_schema import DRAWS_BLOCK, SampledUse

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from guardrail.hypotheses.base import Arrays, Row
    from guardrail.hypotheses.program_inputs import ProgramInputs
    from guardrail.policy.program_schema import PyroProgram

Latents: TypeAlias = "dict[str, torch.Tensor]"

HARM = "harm"
_PROBES = 4
_SAME = 1e-9


def configure() -> None:
    """64-bit numbers and no checks that depend on values; for a process that belongs to one program."""
    torch.set_default_dtype(torch.float64)
    torch.distributions.Distribution.set_default_validate_args(False)
    pyro.enable_validation(False)


class TorchProgramFamily:
    """A finite class of draws from the prior of a Pyro program; see the module.

    Args:
        model: the user's function of a mapping of inputs to tensors.
        name: how the policy calls it.
        spec: the policy's hypotheses, with use sampled.
        inputs: how rows hold the program's inputs.
        outcome: name of the outcome's site.
        harm: the harm event.
        latents: the class, [H, ...] for each site; drawn from the prior if None.

    :raises ProgramError: if the program is no hypothesis class.
    """

    name = "pyro"

    def __init__(
        self,
        model: Callable[..., Any],
        name: str,
        spec: PyroProgram,
        inputs: ProgramInputs,
        outcome: str,
        harm: HarmEvent,
        latents: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        assert isinstance(spec.use, SampledUse)
        self._model, self._program, self._outcome, self._harm = model, name, outcome, harm
        self._inputs, self._seed = inputs, spec.use.seed
        self.row_length = inputs.row_length
        self.size, self.width = spec.use.draws, DRAWS_BLOCK
        self._vectorised = True
        example = inputs.examples()[0]
        self._sites = self._inspect(example)
        if latents is not None:
            self._latents = {site: torch.as_tensor(np.array(value)) for site, value in latents.items()}
        else:
            self._latents = self._draw_class(example)
        self._vectorised = self._can_be_vectorised(example)
        self.arrays: Arrays = {"block": on_cpu(np.arange(self.size // self.width, dtype=np.uint32))}
        self.row_arrays = frozenset(self.arrays)
        self.trace_key: Hashable = (self.name, object())
        self.assumptions: tuple[str, ...] = (class_in_words(self.size, name, self._seed), INDEPENDENT, ARITHMETIC)

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

        def run(blocks: Any, row: Any, outcome: Any) -> npt.NDArray[np.float64]:
            value = torch.as_tensor(float(outcome))
            return self._of_blocks(blocks, lambda latents: self._log_probability(latents, np.asarray(row), value))

        return self._callback(run, arrays, row, outcome)

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: what is allowed to the program's arithmetic; an assumption, not a proof."""
        return jnp.asarray(LIKELIHOOD_ROUNDING)

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H]: harm probabilities, raised by their rounding; of a slice of the row arrays, of that slice."""

        def run(blocks: Any, row: Any) -> npt.NDArray[np.float64]:
            return self._of_blocks(blocks, lambda latents: self._harm_probability(latents, np.asarray(row), 0.0))

        return self._callback(run, arrays, row)

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H / width]: inf, since nothing is known of a program without running it."""
        return jnp.full(arrays["block"].shape[0], jnp.inf, jnp.float64)

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """The score itself."""
        return score

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """The draw's number, and its latent values (of long vectors, the first ones)."""
        shown: list[tuple[str, float]] = []
        for site, values in self._latents.items():
            value = values[index].numpy()
            for place in np.ndindex(value.shape):
                label = f"{site}[{','.join(map(str, place))}]" if place else site
                shown.append((label, float(value[place])))
        return f"draw {index}", dict(shown[:MAX_SHOWN_PARAMETERS])

    # ------------------------------------------------------------ looking at it

    def verify(self) -> str:
        """A digest of the program's numbers, after checks that they are what they must be.

        :raises ProgramError: if it is not a function of its seed, its prior depends on inputs or outcome, its harm
            depends on the outcome, or a latent value is no finite number.
        """
        rows = self._inputs.examples()
        for site, values in self._latents.items():
            if not bool(torch.isfinite(values).all()):
                raise self._error(f"draws a value of latent site {site!r} that is no finite number")
        first, again = (self._draw_block(0, rows[0], _PROBES)[0] for _ in range(2))
        if not _equal(first, again):
            raise self._error("is not a function of its seed: two runs with the same seed give different numbers")
        other = rows[-1] if len(rows) > 1 else 0.75 * rows[0] + 0.125
        if self._inputs.has_category:
            other[-1] = rows[0][-1]
        if not _equal(first, self._draw_block(0, other, _PROBES)[0]):
            raise self._error(
                "has a prior that depends on the inputs; a hypothesis is one model for all inputs, so its prior must "
                "not see them"
            )
        if isinstance(self._harm, ModelHarm):
            low, high = (
                self._of_each(self._first(_PROBES), functools.partial(self._harm_probability, row=rows[0], outcome=y))
                for y in (0.0, 1e3)
            )
            if not np.array_equal(low, high, equal_nan=True):
                raise self._error("computes site 'harm' from the outcome; it must be a probability given the latents")
        digest = hashlib.sha256()
        for site in sorted(self._latents):
            digest.update(self._latents[site].numpy().tobytes())
        for row in (*self.examples(), other):
            harms = self._of_each(self._first(_PROBES), functools.partial(self._harm_probability, row=row, outcome=0.0))
            digest.update(harms.tobytes())
            for outcome in (torch.as_tensor(0.0), torch.as_tensor(1.0)):
                told = functools.partial(self._log_probability, row=row, outcome=outcome)
                digest.update(self._of_each(self._first(_PROBES), told).tobytes())
        return digest.hexdigest()

    def examples(self) -> npt.NDArray[np.float64]:
        """float64[E, F]: the policy's example inputs."""
        return self._inputs.examples()

    def prior_predictive(self, row: Row, draws: int) -> tuple[Any, Any, Any]:
        """Outcomes, their log-likelihoods and harms of draws from the prior at one input, float64[draws] each."""
        latents, outcomes = self._draw_block(0, row, draws)
        densities = self._of_each(
            {**latents, "": outcomes},
            lambda both: self._log_probability({k: v for k, v in both.items() if k}, row, both[""]),
        )
        return outcomes.numpy(), densities, self._of_each(latents, lambda s: self._harm_probability(s, row, 0.0))

    # ------------------------------------------------------------ running the model

    def _error(self, message: str) -> ProgramError:
        return ProgramError(f"{self._program} {message}")

    def _named(self, row: Row) -> dict[str, torch.Tensor]:
        tensor = torch.as_tensor(np.array(row))
        named = dict(self._inputs.named(tensor))
        if self._inputs.has_category:
            named[CATEGORY] = tensor[-1].long()
        return named

    def _trace(self, model: Callable[..., Any], row: Row) -> Any:
        with torch.no_grad():
            return pyro.poutine.trace(model).get_trace(self._named(row)).nodes

    def _given(self, latents: Latents, row: Row, outcome: Any) -> Any:
        values = {**latents, self._outcome: torch.as_tensor(outcome)}
        nodes = self._trace(pyro.poutine.condition(self._model, data=values), row)
        self._check_sites(nodes)
        return nodes

    def _log_probability(self, latents: Latents, row: Row, outcome: torch.Tensor) -> torch.Tensor:
        distribution = self._given(latents, row, outcome)[self._outcome]["fn"]
        density: torch.Tensor = torch.where(
            distribution.support.check(outcome), distribution.log_prob(outcome), -torch.inf
        )
        return torch.where(torch.isnan(outcome), torch.nan, density)

    def _harm_probability(self, latents: Latents, row: Row, outcome: float) -> torch.Tensor:
        nodes = self._given(latents, row, outcome)
        if isinstance(self._harm, ModelHarm):
            value = torch.as_tensor(nodes[HARM]["value"])
            return torch.where((value >= 0.0) & (value <= 1.0), torch.clamp(value + MARGIN, max=1.0), torch.nan)
        distribution = nodes[self._outcome]["fn"]
        if isinstance(self._harm, BooleanHarm):
            value = distribution.log_prob(torch.as_tensor(float(self._harm.harmful))).exp()
        elif not isinstance(self._harm, IntervalHarm):
            raise self._error("has an outcome that is neither a bool nor a number")
        else:
            inner = self._cdf(distribution, self._harm.upper) - self._cdf(distribution, self._harm.lower)
            value = inner if self._harm.inside else 1.0 - inner
        usable = (value >= -MARGIN) & (value <= 1.0 + MARGIN)
        return torch.where(usable, torch.clamp(value + MARGIN, 0.0, 1.0), torch.nan)

    def _cdf(self, distribution: Any, end: float) -> Any:
        return (0.0 if end < 0 else 1.0) if math.isinf(end) else distribution.cdf(torch.as_tensor(end))

    def _inspect(self, row: Row) -> dict[str, tuple[int, ...]]:
        torch.manual_seed(self._seed)
        nodes = self._trace(self._model, row)
        samples = {name: node for name, node in nodes.items() if node["type"] == "sample" and _is_random(node)}
        if self._outcome not in samples:
            known = ", ".join(samples) or "none"
            raise self._error(f"has no sample site {self._outcome!r}, the policy's outcome; its sample sites: {known}")
        for name, node in nodes.items():
            if node["type"] == "param":
                raise self._error(
                    f"has a parameter {name!r}; what is unknown must be a latent sample site with a prior"
                )
        for name, node in samples.items():
            if node["is_observed"]:
                raise self._error(
                    f"observes {name!r} itself (obs= or factor); outcomes are put in at {self._outcome!r}"
                )
        if samples[self._outcome]["value"].shape != ():
            raise self._error(f"site {self._outcome!r} is an array; one outcome is one number")
        if (HARM in nodes) != isinstance(self._harm, ModelHarm):
            raise self._error("and the policy must say harm once: a deterministic site 'harm', or the field harm")
        if isinstance(self._harm, BooleanHarm) and samples[self._outcome]["fn"].support is not _BOOLEAN:
            raise self._error(f"has a bool for its outcome, but {self._outcome!r} is not over 0 and 1; use Bernoulli")
        if isinstance(self._harm, IntervalHarm):
            self._check_cdf(samples[self._outcome]["fn"], self._harm)
        sites = {name: tuple(node["value"].shape) for name, node in samples.items() if name != self._outcome}
        if not sites:
            raise self._error("samples nothing but its outcome, so there is one hypothesis and nothing to learn")
        return sites

    def _check_cdf(self, distribution: Any, harm: IntervalHarm) -> None:
        if getattr(distribution.support, "is_discrete", False):
            raise self._error(f"has a discrete outcome {self._outcome!r}; say harm by a deterministic site 'harm'")
        try:
            self._cdf(distribution, harm.upper if math.isfinite(harm.upper) else harm.lower)
        except NotImplementedError:
            raise self._error(
                f"has an outcome {self._outcome!r} whose distribution has no cdf; use another, or a site 'harm'"
            ) from None

    def _check_sites(self, nodes: Any) -> None:
        found = {
            name: tuple(node["value"].shape)
            for name, node in nodes.items()
            if node["type"] == "sample" and _is_random(node) and name != self._outcome
        }
        if found != self._sites:
            names = sorted(n for n in found.keys() | self._sites.keys() if found.get(n) != self._sites.get(n))
            raise self._error(f"changes its sites between calls ({', '.join(names)})")

    # ------------------------------------------------------------ many draws

    def _draw_class(self, row: Row) -> Latents:
        size = sum(8 * math.prod(shape) for shape in self._sites.values()) * self.size
        if size > STORED_BYTES:
            raise self._error(f"has a class of {size} bytes, at most {STORED_BYTES} are allowed; use fewer draws")
        blocks = [self._draw_block(block, row, self.width)[0] for block in range(self.size // self.width)]
        return {site: torch.cat([block[site] for block in blocks]) for site in self._sites}

    def _draw_block(self, block: int, row: Row, count: int) -> tuple[Latents, torch.Tensor]:
        """`count` draws of the latent sites, and as many outcomes."""
        digest = hashlib.sha256(f"{self._seed}/{block}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7]))

        def one() -> Latents:
            nodes = self._trace(self._model, row)
            self._check_sites(nodes)
            names = (*self._sites, self._outcome)
            return {name: nodes[name]["value"].double() for name in names}

        # One by one: torch's samplers have no rule for many independent draws at once.
        singles = [one() for _ in range(count)]
        drawn = {name: torch.stack([single[name] for single in singles]) for name in singles[0]}
        return {site: drawn[site] for site in self._sites}, drawn[self._outcome]

    def _can_be_vectorised(self, row: Row) -> bool:
        def numbers(latents: Latents) -> torch.Tensor:
            return self._harm_probability(latents, row, 0.0) + self._log_probability(latents, row, torch.as_tensor(0.0))

        try:
            together = self._of_each(self._first(_PROBES), numbers)
        except (RuntimeError, NotImplementedError, TypeError):
            return False
        self._vectorised = False
        return bool(np.allclose(together, self._of_each(self._first(_PROBES), numbers), rtol=1e-9, equal_nan=True))

    def _first(self, count: int) -> Latents:
        return {site: values[:count] for site, values in self._latents.items()}

    def _of_each(self, latents: Latents, function: Callable[[Latents], torch.Tensor]) -> npt.NDArray[np.float64]:
        with torch.no_grad():
            if self._vectorised:
                values = torch.func.vmap(function, randomness="error")(latents)
            else:
                count = len(next(iter(latents.values())))
                values = torch.stack([function({s: v[i] for s, v in latents.items()}) for i in range(count)])
        return values.detach().double().numpy()

    def _of_blocks(self, blocks: Any, function: Callable[[Latents], torch.Tensor]) -> npt.NDArray[np.float64]:
        found = []
        for block in np.asarray(blocks).astype(np.int64):
            place = slice(int(block) * self.width, (int(block) + 1) * self.width)
            found.append(self._of_each({site: values[place] for site, values in self._latents.items()}, function))
        first = int(np.asarray(blocks)[0]) * self.width
        probes = {site: values[first : first + _PROBES] for site, values in self._latents.items()}
        if not np.allclose(found[0][:_PROBES], self._of_each(probes, function), rtol=_SAME, atol=_SAME, equal_nan=True):
            raise self._error("is not a function of its latent values: two calls give different numbers")
        return np.concatenate(found)

    def _callback(self, run: Callable[..., Any], arrays: Arrays, *arguments: jax.Array) -> jax.Array:
        blocks = arrays["block"]
        shape = jax.ShapeDtypeStruct((blocks.shape[0] * self.width,), jnp.float64)  # type: ignore[no-untyped-call]
        values: jax.Array = jax.pure_callback(run, shape, blocks, *arguments)
        return values


_BOOLEAN = torch.distributions.constraints.boolean


def _is_random(node: Any) -> bool:
    """False for deterministic values and for plates, which Pyro records as sample sites too."""
    kind = type(node["fn"]).__name__
    return kind != "_Subsample" and not node["infer"].get("_deterministic", False)


def _equal(left: Latents, right: Latents) -> bool:
    return all(torch.equal(left[site], right[site]) for site in left)
