"""Classes of hypotheses with a few actions to choose from, and the truths in and outside of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.hypotheses.base import EnumeratedFamily
from guardrail.hypotheses.conjugate import ConjugateFamily
from guardrail.hypotheses.gaussian_harm import interval_harm
from simulations.validation.conjugate import ConjugateModel
from simulations.validation.finite import FiniteData, FiniteModel
from simulations.validation.model import Model

Floats = npt.NDArray[np.float64]


class Truths(NamedTuple):
    """The truth of each of L runs.

    Attributes:
        mean: float64[L, A], mean of each action's outcome.
        harm: float64[L, A], probability of harm.
        prior_mass: float64[L], of the truth under the prior; NaN where it has none.
    """

    mean: Floats
    harm: Floats
    prior_mass: Floats


@dataclass(frozen=True, eq=False)
class FiniteWorld:
    """A finite class with a few actions to choose from.

    Attributes:
        title: its name in the table; `words.CLASSES` says more.
        family: the service's family.
        rows: float64[A, F], the encoded input of each action.
        mean: float64[H, A], mean of the outcome.
        harm: float64[H, A], probability of harm, as the family says it.
        priors: float64[H] log masses by name.
        outside: float64[A] means of truths that are no member, by name.
        noise_sd: of a Gaussian outcome; None for a Boolean one.
        harm_above: a Gaussian outcome above it is harm; a Boolean one is harm when true.
    """

    title: str
    family: EnumeratedFamily
    rows: Floats
    mean: Floats
    harm: Floats
    priors: Mapping[str, Floats]
    outside: Mapping[str, tuple[float, ...]]
    noise_sd: float | None = None
    harm_above: float = math.inf

    @property
    def actions(self) -> int:
        """Number of actions, A."""
        return len(self.rows)

    @property
    def hypotheses(self) -> int:
        """Number of hypotheses, H."""
        return len(self.mean)

    draws = 1
    """Uniform numbers that a truth takes."""

    def model(self, prior: str, kernel: str, delta: float) -> Model:
        """The class under one bound; the prior is given to the model later, so that priors share its programs."""
        del prior
        return FiniteModel(self, kernel, delta)

    def data(self, prior: str) -> FiniteData:
        """What a model of the class is given, under one prior."""
        with jax.enable_x64(True):
            return FiniteData(
                log_prior=jnp.asarray(self.priors[prior]),
                harm=jnp.asarray(self.harm),
                mean=jnp.asarray(self.mean),
                rows=jnp.asarray(self.rows),
                # The family keeps them on the CPU; as host arrays they go wherever the others go.
                arrays={name: jnp.asarray(np.asarray(array)) for name, array in self.family.arrays.items()},
            )

    def truths(self, prior: str, truth: str, uniform: Floats) -> Truths:
        """The truth of each run.

        Args:
            prior: name of the prior.
            truth: `prior` (drawn from it), `rarest` (the least likely member; of several, the most harmful), or a name
                of `outside`.
            uniform: float64[L, 1] in [0, 1).
        """
        masses = np.exp(self.priors[prior])
        if truth in self.outside:
            mean = np.asarray(self.outside[truth])
            shape = (len(uniform), self.actions)
            true_harm = np.broadcast_to(_harm_of_means(mean, self.noise_sd, self.harm_above), shape)
            return Truths(np.broadcast_to(mean, shape), true_harm, np.full(len(uniform), np.nan))
        if truth == "rarest":
            rarest = np.flatnonzero(masses <= masses.min() * (1 + 1e-9))
            index = np.full(len(uniform), rarest[np.argmax(self.harm[rarest].sum(axis=1))])
        else:
            index = np.searchsorted(np.cumsum(masses) / masses.sum(), uniform[:, 0], side="right")
        return self.members(prior, np.minimum(index, self.hypotheses - 1))

    def members(self, prior: str, index: npt.NDArray[np.intp]) -> Truths:
        """Truths that are members, by number, int[L]."""
        return Truths(self.mean[index], self.harm[index], np.exp(self.priors[prior][index]))


@dataclass(frozen=True, eq=False)
class ConjugateWorld:
    """A continuous class with a closed-form posterior and a few actions to choose from.

    Attributes:
        title: its name in the table; `words.CLASSES` says more.
        families: the service's family under each prior, by the prior's name.
        rows: float64[A, F], the encoded input of each action.
        event: what outcome is harm.
        draw: from float64[L, draws] uniform numbers and the prior's name to float64[L, A] means of a truth from the
            prior (of a class with a box: uniform in it).
        draws: uniform numbers that a truth takes.
        fixed: float64[A] means of truths far out in the class, or outside a box, by name.
        noise_sd: of a Gaussian outcome; None for a Boolean one.
        harm_above: a Gaussian outcome above it is harm; a Boolean one is harm when true.
    """

    title: str
    families: Mapping[str, ConjugateFamily]
    rows: Floats
    event: BooleanHarm | IntervalHarm
    draw: Callable[[str, Floats], Floats]
    draws: int
    fixed: Mapping[str, tuple[float, ...]]
    noise_sd: float | None = None
    harm_above: float = math.inf

    hypotheses = None
    """There are uncountably many."""

    @property
    def actions(self) -> int:
        """Number of actions, A."""
        return len(self.rows)

    def model(self, prior: str, kernel: str, delta: float) -> Model:
        """The class under one bound."""
        return ConjugateModel(self, prior, kernel, delta)

    def data(self, prior: str) -> None:
        """Nothing: the family has its own prior."""

    def truths(self, prior: str, truth: str, uniform: Floats) -> Truths:
        """The truth of each run: `prior` (drawn from it) or a name of `fixed`; uniform is float64[L, draws]."""
        if truth == "prior":
            mean = self.draw(prior, uniform)
        else:
            mean = np.broadcast_to(np.asarray(self.fixed[truth]), (len(uniform), self.actions))
        return Truths(mean, _harm_of_means(mean, self.noise_sd, self.harm_above), np.full(len(uniform), np.nan))


World = FiniteWorld | ConjugateWorld


def _harm_of_means(mean: Floats, noise_sd: float | None, above: float) -> Floats:
    if noise_sd is None:
        return mean
    with jax.enable_x64(True):
        event = IntervalHarm(above, math.inf, inside=True)
        return np.asarray(interval_harm(event, noise_sd, jnp.asarray(mean)))
