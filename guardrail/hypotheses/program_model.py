"""One NumPyro model, read as a hypothesis class: what it leaves unknown, and what each value of it says.

Latent sites are what the model samples, but for the site with the outcome's name. Effect handlers put
values in for them; the model needs no `obs=`. Everything here is a pure JAX function of its arguments,
traced under 64-bit mode, so the model's Python runs when something is compiled and not again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import constraints

from guardrail.domain import HarmEvent, ModelHarm
from guardrail.hypotheses import program_harm
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.hypotheses.program_inputs import CATEGORY

if TYPE_CHECKING:
    from guardrail.hypotheses.program_inputs import ProgramInputs

Latents: TypeAlias = Mapping[str, jax.Array]
"""One value of every latent site."""

HARM = "harm"
_HARMLESS_SITES = frozenset({"plate", "deterministic", "prng_key", "control_flow"})


@dataclass(frozen=True)
class Site:
    """A latent site: shape and type of its values, and the name of its distribution."""

    shape: tuple[int, ...]
    dtype: Any
    distribution: str


@dataclass(frozen=True)
class Outcome:
    """What the outcome's distribution can do: is it over 0 and 1 only, and does it know its cdf."""

    boolean: bool
    has_cdf: bool


class ProgramModel:
    """A model with the names of its outcome and of its harm.

    Args:
        model: the user's function of a mapping of inputs.
        name: how the policy calls it.
        inputs: how rows hold its inputs.
        outcome: name of the outcome's site.
        harm: the harm event; `ModelHarm` if the model's site `harm` says it.

    Attributes:
        sites: the latent sites, in the model's order; known after `inspect`.
    """

    def __init__(
        self, model: Callable[..., Any], name: str, inputs: ProgramInputs, outcome: str, harm: HarmEvent
    ) -> None:
        self.name, self.inputs, self.outcome, self.harm = name, inputs, outcome, harm
        self._model = model
        self.sites: dict[str, Site] = {}

    # ------------------------------------------------------------ running it

    def prior_draw(self, key: jax.Array, row: jax.Array) -> tuple[Latents, jax.Array]:
        """A value of every latent site and an outcome, drawn from the model."""
        trace = self._trace(handlers.seed(self._model, key), row)
        return self._latents(trace), trace[self.outcome]["value"]

    def prior_quantile(self, levels: Mapping[str, jax.Array], row: jax.Array) -> Latents:
        """Each latent site at its quantile, given the sites before it.

        :raises ProgramError: if a site's distribution has no quantile function.
        """

        def quantile(site: dict[str, Any]) -> Any:
            if site["name"] not in levels:
                return None
            try:
                return site["fn"].icdf(levels[site["name"]])
            except (NotImplementedError, ImportError, AttributeError):
                raise self.error(
                    f"latent site {site['name']!r} is {_kind(site['fn'])}, whose quantile function NumPyro lacks, so "
                    "it cannot lie on a grid; use another distribution, or use: {kind: sampled}"
                ) from None

        placed = handlers.substitute(self._model, substitute_fn=quantile)
        # The seed is for the outcome alone, whose value is not used.
        return self._latents(self._trace(handlers.seed(placed, jax.random.key(0)), row))

    def given(self, latents: Latents, row: jax.Array, outcome: jax.Array) -> dict[str, Any]:
        """The trace with values put in for everything; it needs no randomness."""
        values = {**latents, self.outcome: outcome}
        trace = self._trace(handlers.substitute(self._model, data=values), row)
        self.check_sites(trace)
        return trace

    def log_probability(self, latents: Latents, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: log density or mass of the outcome; -inf outside the support."""
        site = self.given(latents, row, outcome)[self.outcome]
        distribution = site["fn"]
        value = outcome.astype(jnp.int32) if distribution.is_discrete else outcome
        density = jnp.asarray(distribution.log_prob(value), jnp.float64)
        inside = jnp.asarray(distribution.support(value)) & (value == outcome)
        return jnp.where(jnp.all(inside), density, jnp.where(jnp.isnan(outcome), jnp.nan, -jnp.inf))

    def latents_given_outcome(self, key: jax.Array, row: jax.Array, outcome: jax.Array) -> Latents:
        """A draw of every latent site with the outcome put in: the same for every outcome, if the model is right."""
        placed = handlers.substitute(self._model, data={self.outcome: outcome})
        return self._latents(self._trace(handlers.seed(placed, key), row))

    def harm_probability(
        self,
        latents: Latents,
        row: jax.Array,
        simulation: tuple[jax.Array, jax.Array] | None = None,
        outcome: jax.Array | None = None,
    ) -> jax.Array:
        """float64[]: probability of harm, never below the exact one; NaN if it is none.

        Args:
            latents: one hypothesis.
            row: the input.
            simulation: key and limits, see `program_harm.simulated`; None if the outcome has a cdf.
            outcome: what to put in for the outcome, on which harm must not depend.
        """
        trace = self.given(latents, row, jnp.zeros(()) if outcome is None else outcome)
        if isinstance(self.harm, ModelHarm):
            return program_harm.of_model(trace[HARM]["value"])
        distribution = trace[self.outcome]["fn"]
        if simulation is None:
            return program_harm.probability(distribution, self.harm)
        return program_harm.simulated(distribution, self.harm, *simulation)

    # ------------------------------------------------------------ reading it

    def inspect(self, key: jax.Array, row: jax.Array) -> Outcome:
        """Learn the sites from one abstract run of the model: shapes and distributions, no numbers.

        :raises ProgramError: if the model is no hypothesis class.
        """
        found: list[Outcome] = []

        def run(key: jax.Array, row: jax.Array) -> jax.Array:
            found.append(self._inspect(self._trace(handlers.seed(self._model, key), row)))
            return row

        jax.eval_shape(run, key, row)
        return found[-1]

    def _inspect(self, trace: Mapping[str, Any]) -> Outcome:
        if self.outcome not in trace or trace[self.outcome]["type"] != "sample":
            known = ", ".join(name for name, site in trace.items() if site["type"] == "sample") or "none"
            raise self.error(
                f"has no sample site {self.outcome!r}, the policy's outcome; its sample sites are: {known}"
            )
        for name, site in trace.items():
            self._check_site(name, site)
        shape = jnp.shape(trace[self.outcome]["value"])
        if shape != ():
            raise self.error(f"site {self.outcome!r} is an array of shape {list(shape)}; one outcome is one number")
        has_harm = HARM in trace
        if has_harm and not isinstance(self.harm, ModelHarm):
            raise self.error("has a site 'harm' and the policy has a field harm; keep one of them")
        if not has_harm and isinstance(self.harm, ModelHarm):
            raise self.error(
                "has no deterministic site 'harm' and the policy has no field harm; add "
                'numpyro.deterministic("harm", ...) to the model or harm: ... to the policy'
            )
        if has_harm and (trace[HARM]["type"] != "deterministic" or jnp.shape(trace[HARM]["value"]) != ()):
            raise self.error("site 'harm' must be a deterministic site with one number")
        latents = self._latents(trace)
        if not latents:
            raise self.error("samples nothing but its outcome, so there is one hypothesis and nothing to learn")
        self.sites = {
            name: Site(jnp.shape(value), jnp.result_type(value), _kind(trace[name]["fn"]))
            for name, value in latents.items()
        }
        distribution = trace[self.outcome]["fn"]
        return Outcome(distribution.support is constraints.boolean, program_harm.has_cdf(distribution))

    def check_sites(self, trace: Mapping[str, Any]) -> None:
        """Fail if a run has other latent sites than the first one.

        :raises ProgramError: if it has.
        """
        found = {name: jnp.shape(value) for name, value in self._latents(trace).items()}
        known = {name: site.shape for name, site in self.sites.items()}
        if found != known:
            names = sorted(name for name in found.keys() | known.keys() if found.get(name) != known.get(name))
            raise self.error(
                f"changes its sites between calls ({', '.join(names)}); a hypothesis class has the same latent sites, "
                "of the same shapes, in every call"
            )

    def error(self, message: str) -> ProgramError:
        """An error that names the model."""
        return ProgramError(f"{self.name} {message}")

    def _trace(self, model: Callable[..., Any], row: jax.Array) -> dict[str, Any]:
        named = dict(self.inputs.named(row))
        if self.inputs.has_category:
            named[CATEGORY] = row[-1].astype(jnp.int32)
        trace: dict[str, Any] = handlers.trace(model).get_trace(named)
        return trace

    def _latents(self, trace: Mapping[str, Any]) -> Latents:
        return {
            name: site["value"] for name, site in trace.items() if site["type"] == "sample" and name != self.outcome
        }

    def _check_site(self, name: str, site: Mapping[str, Any]) -> None:
        kind = site["type"]
        if kind == "param":
            raise self.error(f"has a parameter {name!r}; what is unknown must be a latent sample site with a prior")
        if kind != "sample":
            if kind not in _HARMLESS_SITES:
                raise self.error(f"has a site {name!r} of kind {kind!r}, which a hypothesis cannot have; leave it out")
            return
        if site["is_observed"]:
            raise self.error(
                f"observes {name!r} itself (obs= or factor); leave that out: outcomes are put in at {self.outcome!r} "
                "as they are reported"
            )
        if site["scale"] is not None:
            raise self.error(f"scales {name!r} (handlers.scale or a subsampled plate); leave that out")


def _kind(distribution: Any) -> str:
    inner = distribution
    while hasattr(inner, "base_dist") and type(inner).__name__ in ("Independent", "ExpandedDistribution"):
        inner = inner.base_dist
    return type(inner).__name__
