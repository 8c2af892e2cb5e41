"""Every bound again, slow and obvious, in float64 NumPy: what an implementation is compared with.

Sorts and Python loops, the definitions read aloud; nothing here is shared with `guardrail.bounds`.
"The paper" is Bengio et al., "Can a Bayesian Oracle Prevent Harm from an Agent?" (UAI 2025).

Arguments are array-likes: `log_posterior` and `log_prior` float[H], `harm` float[H, A]. NaN or +inf in a
posterior or prior bounds every action by 1 and leaves nothing out of a set; a column of harm that holds
anything but probabilities bounds its action by 1; an empty set bounds every action by 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ROUNDING = 1e-12
"""Relative rounding that every comparison forgives, toward the larger set or the larger harm."""


def posterior(log_prior: npt.ArrayLike, log_likelihood: npt.ArrayLike) -> Floats:
    """Log posterior, float64[H], of a log prior and the log likelihood of everything observed, float[H]."""
    joint = np.asarray(log_prior, np.float64) + np.asarray(log_likelihood, np.float64)
    largest = joint.max()
    normalised: Floats = joint - largest - math.log(math.fsum(np.exp(joint - largest)))
    return normalised


def predictive(log_posterior: npt.ArrayLike, harm: npt.ArrayLike) -> Floats:
    """Posterior predictive harm, float64[A]: the mean of harm under the posterior."""
    weights, columns = np.asarray(log_posterior, np.float64), np.asarray(harm, np.float64)
    bound = np.ones(columns.shape[1])
    for action in _usable_actions(columns):
        if _is_distribution(weights):
            bound[action] = min(1.0, math.fsum(np.exp(weights) * columns[:, action]))
    return bound


def iid(log_posterior: npt.ArrayLike, harm: npt.ArrayLike) -> Floats:
    """Largest harm among the hypotheses tied for the largest posterior * harm (the paper, Proposition 3.3)."""
    weights, columns = np.asarray(log_posterior, np.float64), np.asarray(harm, np.float64)
    bound = np.ones(columns.shape[1])
    if not _has_mass(weights):
        return bound
    for action in _usable_actions(columns):
        scores = [w + math.log(h) if h > 0 else -math.inf for w, h in zip(weights, columns[:, action], strict=True)]
        best = max(scores)
        tied = [h for s, h in zip(scores, columns[:, action], strict=True) if s == best or s - best >= -_rounding(best)]
        bound[action] = max(tied)
    return bound


def plausible_set(log_posterior: npt.ArrayLike, alpha: float, ties: str = "all") -> Mask:
    """Longest prefix of the sorted posterior with P_n >= alpha * (P_1 + ... + P_n) (the paper, equation 7).

    Ties are ordered by index; with ties="all" every hypothesis tied with the last member joins it.
    """
    weights = np.asarray(log_posterior, np.float64)
    if not _has_mass(weights) or alpha == 0:
        return np.ones(len(weights), bool)
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    largest = weights.max()
    members, cumulated = np.zeros(len(weights), bool), 0.0
    for index in order:
        mass = math.exp(weights[index] - largest)
        cumulated += mass
        if mass < alpha * cumulated * (1 - _rounding(largest, math.log(alpha))):
            break
        members[index] = True
        last = weights[index]
    if ties == "all":
        members |= weights - last >= -_rounding(largest, math.log(alpha))
    return members


def plausible(log_posterior: npt.ArrayLike, harm: npt.ArrayLike, alpha: float, ties: str = "all") -> Floats:
    """Largest harm over the plausible set, float64[A] (the paper, Proposition 4.5)."""
    if not _has_mass(np.asarray(log_posterior, np.float64)):
        return np.ones(np.shape(harm)[1])
    return set_bound(plausible_set(log_posterior, alpha, ties), harm)


def ratio_set(log_posterior: npt.ArrayLike, log_prior: npt.ArrayLike, delta: float) -> Mask:
    """Hypotheses whose posterior is at least delta times their prior (Waudby-Smith and Ramdas 2020).

    A hypothesis of prior mass 0 is always a member.
    """
    weights, prior = np.asarray(log_posterior, np.float64), np.asarray(log_prior, np.float64)
    if not (_is_distribution(weights) and _is_distribution(prior)):
        return np.ones(len(weights), bool)
    cut = math.log(delta)
    return np.array([p == -math.inf or w >= p + cut - _rounding(p, cut) for w, p in zip(weights, prior, strict=True)])


def ratio(log_posterior: npt.ArrayLike, log_prior: npt.ArrayLike, harm: npt.ArrayLike, delta: float) -> Floats:
    """Largest harm over the ratio set, float64[A]."""
    if not (_is_distribution(np.asarray(log_posterior)) and _is_distribution(np.asarray(log_prior))):
        return np.ones(np.shape(harm)[1])
    return set_bound(ratio_set(log_posterior, log_prior, delta), harm)


def weak(log_posterior: npt.ArrayLike, log_prior: npt.ArrayLike, harm: npt.ArrayLike, delta: float) -> Floats:
    """sup of posterior * harm / (delta * prior), float64[A] (the paper, Proposition 4.3); it may exceed 1."""
    weights, prior = np.asarray(log_posterior, np.float64), np.asarray(log_prior, np.float64)
    columns = np.asarray(harm, np.float64)
    bound = np.ones(columns.shape[1])
    if not (_is_distribution(weights) and _is_distribution(prior)):
        return bound
    for action in _usable_actions(columns):
        bound[action] = 0.0
        for w, p, h in zip(weights, prior, columns[:, action], strict=True):
            if h > 0:
                term = math.inf if p == -math.inf else _exp(w - p) * h / delta
                bound[action] = max(bound[action], term)
    return bound


def set_bound(members: npt.ArrayLike, harm: npt.ArrayLike) -> Floats:
    """Largest harm over a set, float64[A]; 1 if it is empty."""
    inside, columns = np.asarray(members, bool), np.asarray(harm, np.float64)
    bound = np.ones(columns.shape[1])
    for action in _usable_actions(columns):
        if inside.any():
            bound[action] = columns[inside, action].max()
    return bound


def running(sets: npt.ArrayLike) -> Mask:
    """bool[T, H]: the intersection of the first t sets, for every t, of bool[T, H]."""
    so_far = np.array(sets, bool)
    for step in range(1, len(so_far)):
        so_far[step] &= so_far[step - 1]
    return so_far


def _rounding(*logs: float) -> float:
    return ROUNDING * (1 + sum(abs(x) for x in logs))


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf


def _has_mass(log_weights: Floats) -> bool:
    return bool(len(log_weights) and not np.isnan(log_weights).any() and math.isfinite(log_weights.max()))


def _is_distribution(log_weights: Floats) -> bool:
    return _has_mass(log_weights) and abs(math.fsum(np.exp(log_weights)) - 1) <= 1e-6


def _usable_actions(harm: Floats) -> list[int]:
    return [a for a in range(harm.shape[1]) if all(0 <= h <= 1 for h in harm[:, a])]
