"""The oracle over a program's continuous class: particles for the posterior, a gradient search for the bound.

The plausible region is that of MATH's e-process: E(t) = {theta : l_t(theta) >= S_t + log delta}, with l_t the exact
log-likelihood and S_t the prequential log score of the particle predictive, fixed before each outcome is seen and
accumulated as outcomes come in. E(t) would contain the truth at all times with probability 1 - delta whatever the
particles are worth (Wasserman, Ramdas and Balakrishnan 2020). But the largest harm over it is searched for, not
found: gradient ascent from many starts may miss it. So every bound is an estimate, and says so.

A state is a pure function of the observations: all randomness comes from the seed and their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import lax

from guardrail.domain import (
    NO_GUARANTEE,
    CautiousHypothesis,
    Guarantee,
    GuaranteeKind,
    HarmBound,
    Parameter,
    PosteriorDetail,
    PosteriorSummary,
    Reason,
    ReasonCode,
)
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.program_posterior import LEAST_EFFECTIVE, Data, Particles, effective_size
from guardrail.hypotheses.program_words import MAX_SHOWN_PARAMETERS
from guardrail.policy.program_schema import MAX_OBSERVATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.hypotheses.base import Row
    from guardrail.hypotheses.program_inputs import ProgramInputs
    from guardrail.hypotheses.program_posterior import ProgramPosterior
    from guardrail.oracles.base import Rows
    from guardrail.policy.program_schema import PosteriorUse

_SMALLEST_BUFFER = 256
_PENALTY = 10.0
_STEP = 0.1
SOURCE = "e-process set of the prequential particle predictive (Wasserman, Ramdas and Balakrishnan 2020), searched"


@dataclass(frozen=True)
class ParticleState:
    """A posterior.

    Attributes:
        rows: float64[n, F], all observations.
        outcomes: float64[n].
        particles: since the last refresh; their weights hold what was observed after it.
        score: S_t, the prequential log score.
        failure: why every bound is 1; None if there are bounds.
    """

    rows: Rows
    outcomes: npt.NDArray[np.float64]
    particles: Particles
    score: float
    failure: Reason | None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.rows.nbytes + self.outcomes.nbytes + int(self.particles.z.nbytes + self.particles.log_weight.nbytes)


class ParticleOracle:
    """Implements `oracles.base.Oracle` for a program with `use: posterior`; works in its process.

    Args:
        posterior: the program's densities and samplers.
        inputs: how rows hold the program's inputs.
        use: the policy's settings.
        delta: of the plausible region; None for the predictive harm alone.
    """

    def __init__(
        self, posterior: ProgramPosterior, inputs: ProgramInputs, use: PosteriorUse, delta: float | None
    ) -> None:
        self._posterior, self._inputs, self._use, self._delta = posterior, inputs, use, delta
        self.row_length = inputs.row_length
        model = posterior.model
        why = "nothing is promised: the posterior mean of harm can lie far below the true harm"
        self.guarantee = Guarantee(GuaranteeKind.NONE, 0.0, (why,), "posterior predictive harm")
        if delta is not None:
            notes = (
                f"the largest harm over the plausible values of {model.name} is searched for from {use.starts} starts; "
                "the search may miss it",
                "outcomes are independent given the inputs and the program's latent values, which never change",
                "the truth is a value of the program's latent sites",
                "the outcome of every action that was carried out is reported, whatever its value",
            )
            self.guarantee = Guarantee(GuaranteeKind.ESTIMATE, 0.0, notes, SOURCE)
        self._each = jax.jit(jax.vmap(self._log_probability, in_axes=(0, None, None)))
        self._harms = jax.jit(jax.vmap(self._harm, in_axes=(0, None)))
        self._likelihoods = jax.jit(jax.vmap(posterior.log_likelihood, in_axes=(0, None)))
        self._search = jax.jit(self._searched)
        self._initial: ParticleState | None = None

    unhurried = True
    needs_current = False
    """Outcomes are independent given the latent values, so an estimate from an older posterior is only older."""

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Features, and the category's index; see `hypotheses.base.Family.encode`."""
        return self._inputs.encode(features, category)

    def init(self) -> ParticleState:
        """Draws from the prior."""
        if self._initial is None:
            with jax.enable_x64(True):
                particles = self._posterior.prior()
            state = ParticleState(np.zeros((0, self.row_length)), np.zeros(0), particles, 0.0, None)
            self._initial = self._judged(state)
        return self._initial

    def observe(self, state: ParticleState, rows: Rows, outcomes: npt.NDArray[np.float64]) -> ParticleState:
        """Condition on N observations in order; see `oracles.base.Oracle.observe`."""
        for row, outcome in zip(np.asarray(rows, np.float64), np.asarray(outcomes, np.float64), strict=True):
            state = self._observed(state, row, float(outcome))
        return state

    def bound(self, state: ParticleState, rows: Rows, deadline: float | None = None) -> list[HarmBound]:
        """Estimate the probability of harm of A inputs; see `oracles.base.Oracle.bound`.

        Args:
            state: any state of this oracle.
            rows: float64[A, F], encoded inputs.
            deadline: of no effect: the search has a fixed number of steps.
        """
        del deadline
        with jax.enable_x64(True):
            data = _padded(state.rows, state.outcomes)
            return [self._bound(state, jnp.asarray(row), data) for row in np.asarray(rows, np.float64)]

    def count(self, state: ParticleState) -> int:
        """Number of observations in the state."""
        return len(state.outcomes)

    def refuted(self, state: ParticleState) -> bool:
        """Never: no member of the class is ruled out for certain."""
        return False

    def failed(self, state: ParticleState) -> bool:
        """True if there are no bounds."""
        return state.failure is not None

    def summary(self, state: ParticleState, top: int = 5) -> PosteriorSummary:
        """Posterior means of the first `top` latent values."""
        means, _ = self._moments(state)
        return PosteriorSummary(self.count(state), False, None, None, None, dict(list(means.items())[:top]))

    def detail(self, state: ParticleState, limit: int) -> PosteriorDetail:
        """Moments of the first latent values as the particles have them; none if those are not to be trusted.

        What is plausible of them is not told: the region is searched, never known.
        """
        if state.failure is not None:
            return PosteriorDetail()
        means, deviations = self._moments(state)
        told = [Parameter(site, mean, deviations[site]) for site, mean in list(means.items())[:limit]]
        usable = all(math.isfinite(one.mean) and math.isfinite(one.deviation) for one in told)
        return PosteriorDetail(parameters=tuple(told) if usable else ())

    def _moments(self, state: ParticleState) -> tuple[dict[str, float], dict[str, float]]:
        """Mean and standard deviation of each latent value under the particles' weights."""
        with jax.enable_x64(True):
            weight = jax.nn.softmax(state.particles.log_weight)
            latents = jax.vmap(self._posterior.constrain)(state.particles.z)
            means = {site: jnp.tensordot(weight, values, 1) for site, values in latents.items()}
            spread = {s: jnp.sqrt(jnp.tensordot(weight, (v - means[s]) ** 2, 1)) for s, v in latents.items()}
        return _flat(jax.tree.map(np.asarray, means)), _flat(jax.tree.map(np.asarray, spread))

    def dump(self, state: ParticleState) -> dict[str, npt.NDArray[Any]]:
        """Observations, particles and score."""
        failure = "" if state.failure is None else f"{state.failure.code.value} {state.failure.message}"
        texts = {"problem": state.particles.problem, "failure": failure}
        return {
            "rows": state.rows,
            "outcomes": state.outcomes,
            "z": np.asarray(state.particles.z),
            "log_weight": np.asarray(state.particles.log_weight),
            "score": np.asarray(state.score),
            **{name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()},
        }

    def load(self, arrays: dict[str, npt.NDArray[Any]]) -> ParticleState:
        """The state that `dump` wrote.

        :raises SnapshotInvalid: if names, shapes or types do not fit this class.
        """
        pattern = self.dump(self.init())
        if arrays.keys() != pattern.keys():
            raise SnapshotInvalid(f"a snapshot of this class holds {sorted(pattern)}, got {sorted(arrays)}")
        count = len(arrays["outcomes"])
        fits = arrays["rows"].shape == (count, self.row_length) and arrays["score"].shape == ()
        fits &= arrays["z"].shape == pattern["z"].shape and arrays["log_weight"].shape == pattern["log_weight"].shape
        if not fits or any(arrays[name].dtype != value.dtype for name, value in pattern.items()):
            raise SnapshotInvalid("the snapshot's arrays do not fit the program")
        problem, failure = (arrays[name].tobytes().decode() for name in ("problem", "failure"))
        code, _, message = failure.partition(" ")
        reason = Reason(ReasonCode(code), message) if failure else None
        with jax.enable_x64(True):
            particles = Particles(jnp.asarray(arrays["z"]), jnp.asarray(arrays["log_weight"]), problem)
        return ParticleState(arrays["rows"], arrays["outcomes"], particles, float(arrays["score"]), reason)

    # ------------------------------------------------------------ one observation

    def _observed(self, state: ParticleState, row: Row, outcome: float) -> ParticleState:
        rows, outcomes = np.vstack([state.rows, row]), np.append(state.outcomes, outcome)
        after = replace(state, rows=rows, outcomes=outcomes)
        if state.failure is not None and state.failure.code is not ReasonCode.DIAGNOSTICS_FAILED:
            return after
        if len(outcomes) > MAX_OBSERVATIONS:
            why = f"a posterior program conditions on at most {MAX_OBSERVATIONS} observations; use sampled"
            return replace(after, failure=Reason(ReasonCode.MODEL_FAILED, why))
        with jax.enable_x64(True):
            before, z = state.particles.log_weight, state.particles.z
            each = self._each(z, jnp.asarray(row), jnp.asarray(outcome))
            if bool(jnp.isnan(each).any()) or bool(jnp.isposinf(each).any()):
                why = f"{self._posterior.model.name} gives a log-likelihood that is no number"
                return replace(after, failure=Reason(ReasonCode.MODEL_FAILED, why))
            # The score of this outcome uses the particles as they were before it: fixed before it was seen.
            gain = jax.nn.logsumexp(before + each) - jax.nn.logsumexp(before)
            after = replace(after, score=state.score + float(gain))
            particles = state.particles._replace(log_weight=before + each)
            if len(outcomes) % self._use.refresh_every == 0:
                particles = self._posterior.posterior(_padded(rows, outcomes), len(outcomes))
        return self._judged(replace(after, particles=particles))

    def _judged(self, state: ParticleState) -> ParticleState:
        """The state with the reason why its particles are not to be trusted, if there is one."""
        particles = state.particles
        problem, effective = particles.problem, effective_size(particles.log_weight)
        if not problem and not effective >= LEAST_EFFECTIVE * len(particles.z):
            problem = (
                f"the weights have collapsed since the last refresh: effective sample size {effective:.1f} of "
                f"{len(particles.z)}; lower refresh_every or take more particles"
            )
        failure = Reason(ReasonCode.DIAGNOSTICS_FAILED, f"{self._posterior.model.name}: {problem}") if problem else None
        return replace(state, failure=failure)

    # ------------------------------------------------------------ one bound

    def _bound(self, state: ParticleState, row: jax.Array, data: Data) -> HarmBound:
        if state.failure is not None:
            return HarmBound(1.0, None, None, NO_GUARANTEE, state.failure)
        particles = state.particles
        harms = self._harms(particles.z, row)
        predictive = min(float(jnp.sum(jax.nn.softmax(particles.log_weight) * harms)), 1.0)
        if not math.isfinite(predictive):
            return _no_number(self._posterior.model.name)
        if self._delta is None:
            return HarmBound(predictive, predictive, None, self.guarantee)
        cut = state.score + math.log(self._delta)
        plausible = self._likelihoods(particles.z, data) >= cut
        places = jnp.argsort(-jnp.where(plausible, harms, -1.0))[: self._use.starts // 2 + 1]
        spread = jnp.argsort(-particles.log_weight)[: self._use.starts - len(places) + 1]
        starts = particles.z[jnp.concatenate([places, spread])[: self._use.starts]]
        found, where = self._search(starts, row, data, jnp.asarray(cut), jnp.std(particles.z, axis=0))
        of_particles = jnp.max(jnp.where(plausible, harms, -jnp.inf))
        best, value = int(jnp.argmax(found)), float(jnp.max(found))
        z = where[best]
        if float(of_particles) > value:
            value, z = float(of_particles), particles.z[int(jnp.argmax(jnp.where(plausible, harms, -jnp.inf)))]
        if not 0.0 <= value <= 1.0:
            if math.isnan(value):
                return _no_number(self._posterior.model.name)
            message = f"{self._posterior.model.name}: the search found no plausible value"
            return HarmBound(1.0, None, None, NO_GUARANTEE, Reason(ReasonCode.DIAGNOSTICS_FAILED, message))
        shown = _flat({site: np.asarray(v) for site, v in self._posterior.constrain(z).items()})
        parameters = dict(list(shown.items())[:MAX_SHOWN_PARAMETERS])
        cautious = CautiousHypothesis("latent values", parameters, value, None)
        return HarmBound(max(value, predictive), predictive, cautious, self.guarantee)

    def _searched(
        self, starts: jax.Array, row: jax.Array, data: Data, cut: jax.Array, spread: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Ascend from each start; the largest harm at a plausible step, -inf without one, and where it is."""
        optimiser = optax.adam(_STEP)

        def objective(z: jax.Array) -> jax.Array:
            shortfall = jnp.maximum(cut - self._posterior.log_likelihood(z, data), 0.0)
            return -jnp.log(self._harm(z, row) + 1e-12) + _PENALTY * shortfall

        def ascend(start: jax.Array) -> tuple[jax.Array, jax.Array]:
            def step(carry: Any, _: None) -> tuple[Any, None]:
                offset, memory, best, place = carry
                z = start + spread * offset
                harm = self._harm(z, row)
                better = (self._posterior.log_likelihood(z, data) >= cut) & (harm > best)
                best, place = jnp.where(better, harm, best), jnp.where(better, z, place)
                gradient = jnp.nan_to_num(spread * jax.grad(objective)(z), posinf=0.0, neginf=0.0)
                update, memory = optimiser.update(gradient, memory)
                return (offset + update, memory, best, place), None

            offset = jnp.zeros_like(start)
            carry = (offset, optimiser.init(offset), jnp.asarray(-jnp.inf), start)
            (_, _, best, place), _ = lax.scan(step, carry, None, length=self._use.search_steps)
            return best, place

        return jax.vmap(ascend)(starts)

    def _harm(self, z: jax.Array, row: jax.Array) -> jax.Array:
        return self._posterior.model.harm_probability(self._posterior.constrain(z), row)

    def _log_probability(self, z: jax.Array, row: jax.Array, outcome: jax.Array) -> jax.Array:
        return self._posterior.model.log_probability(self._posterior.constrain(z), row, outcome)


def _padded(rows: Rows, outcomes: npt.NDArray[np.float64]) -> Data:
    """Buffers whose sizes are few, so that programs are compiled a few times only."""
    count = len(outcomes)
    size = _SMALLEST_BUFFER
    while size < count:
        size *= 4
    # Padding repeats the last input: every program can take it.
    places = np.minimum(np.arange(size), max(count - 1, 0))
    filled = rows[places] if count else np.ones((size, rows.shape[1]))
    values = outcomes[places] if count else np.zeros(size)
    return Data(jnp.asarray(filled), jnp.asarray(values), jnp.asarray(np.arange(size) < count))


def _no_number(name: str) -> HarmBound:
    reason = Reason(ReasonCode.MODEL_FAILED, f"{name} gives a harm probability that is no number")
    return HarmBound(1.0, None, None, NO_GUARANTEE, reason)


def _flat(latents: dict[str, npt.NDArray[Any]]) -> dict[str, float]:
    """Latent values by label: `site`, or `site[index]` for arrays."""
    return {
        f"{site}[{','.join(map(str, place))}]" if place else site: float(value[place])
        for site, value in latents.items()
        for place in np.ndindex(value.shape)
    }
