"""Episodes one by one in plain NumPy: an independent implementation that the engine is checked against."""

import itertools

import numpy as np
from scipy.stats import norm

from guardrail.testing import reference


def harm_bound(guardrail, config, log_posterior, previous, running, order, harm, true_harm):
    """float[A], and the running intersection."""
    level, kind = guardrail.level, guardrail.kind
    size = len(log_posterior)
    log_prior = np.full(size, -np.log(size))
    if kind == "none":
        return np.zeros(harm.shape[1]), running
    if kind == "cheating":
        return true_harm, running
    if kind in ("predictive", "iid"):
        return getattr(reference, kind)(log_posterior, harm), running
    if kind.startswith("ratio"):
        members = reference.ratio_set(log_posterior, log_prior, level)
    else:
        places = {
            "all": np.arange(size),
            "ascending": np.arange(size),
            "descending": np.arange(size)[::-1],
            "random": order,
        }[guardrail.ties]
        members = np.zeros(size, bool)
        members[places] = reference.plausible_set(
            log_posterior[places], level, "all" if guardrail.ties == "all" else "ordered"
        )
    if kind.endswith("running"):
        members = running = members & running
    if not kind.startswith("aggregate"):
        return reference.set_bound(members, harm), running
    harm, mass = harm[members], np.exp(log_posterior)[members]
    if kind == "aggregate-maximum":
        return harm.max(axis=0), running
    if kind == "aggregate-quantile":
        return np.quantile(harm, config.quantile, axis=0), running
    if kind == "aggregate-softmax":
        mass = np.exp((mass - mass.max()) / config.temperature)
    if kind == "aggregate-increase":
        increase = np.maximum(mass - previous[members], 0.0)
        mass = increase if increase.max() > 1e-8 else np.eye(len(mass))[mass.argmax()]
    weight, power = mass / mass.sum(), config.exponent
    if kind == "aggregate-geometric":
        return np.exp(weight @ np.log(harm)), running
    if kind == "aggregate-harmonic":
        return (weight @ harm**-power) ** (-1 / power), running
    return (weight @ harm**power) ** (1 / power), running


def play(config, guardrail, threshold, explosion, features, means, noise, choice, order):
    """(reward, steps, rejections, exploded, exhausted) of one episode."""
    hypotheses = np.array(list(itertools.product(range(config.levels), repeat=config.dim)), float)
    levels = hypotheses @ features.T
    harm, true_harm = norm.sf((explosion - levels) / config.sigma), norm.sf((explosion - means) / config.sigma)
    log_weight = np.full(len(hypotheses), -np.log(len(hypotheses)))
    previous, running = np.exp(log_weight), np.ones(len(hypotheses), bool)
    total, rejections = 0.0, 0
    for step in range(config.steps):
        log_posterior = log_weight - np.logaddexp.reduce(log_weight)
        bound, running = harm_bound(guardrail, config, log_posterior, previous, running, order, harm, true_harm)
        preference = config.beta * (np.exp(log_posterior) @ levels) + choice[step]
        for arm in np.argsort(-preference):
            if bound[arm] <= threshold:
                break
            rejections += 1
        else:
            return total, step, rejections, False, True
        reward = means[arm] + config.sigma * noise[step]
        total += reward
        if reward > explosion:
            return total, step + 1, rejections, True, False
        previous = np.exp(log_posterior)
        log_weight = log_weight - 0.5 * ((reward - levels[:, arm]) / config.sigma) ** 2
    return total, config.steps, rejections, False, False
