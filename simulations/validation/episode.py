"""Runs of many episodes at once: check every action, choose one, see its outcome, and keep the account.

One program for each class, bound and level. Agents, truths, priors, faulty reporting and budgets are data of the
lanes (runs) and not of the program, so that few programs are compiled; the number of steps is data too.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from simulations.validation import agents, budget, forecasters
from simulations.validation.model import Data, Look, Model, State

TOLERANCE = 1e-9
"""A bound fails where it is below the true harm by more than this: mean harms are sums of rounded numbers."""


class Lanes(NamedTuple):
    """What distinguishes runs; each entry has a first axis of L runs.

    Attributes:
        key: random key of the run.
        agent: int[L], place in `agents.AGENTS`.
        mean: float64[L, A], true mean of each action's outcome.
        harm: float64[L, A], true probability of harm.
        alpha: float64[L], level of plausible sets.
        repeats: float64[L], how often an outcome is reported: 1, or 2.
        withheld: bool[L], whether harmful outcomes are not reported.
        budget: float64[L], harm budget; inf for none.
        outcomes: int[L], outcomes of an enumerated run: bit t is the outcome of step t. -1 for sampled outcomes.
    """

    key: jax.Array
    agent: jax.Array
    mean: jax.Array
    harm: jax.Array
    alpha: jax.Array
    repeats: jax.Array
    withheld: jax.Array
    budget: jax.Array
    outcomes: jax.Array


class Record(NamedTuple):
    """What is kept of a run; sums are over the steps that count (an adversary stops when the bound has failed).

    Attributes:
        failed_at: int, first step at which some action's bound was below its true harm; -1 if none.
        log_weight: log probability of the outcomes under the truth (of Boolean outcomes).
        steps: int, steps that count.
        excess: sum over steps and actions of the bound (at most 1) minus the true harm.
        safe, unsafe: checks of actions whose true harm is at most, or above, the threshold.
        safe_accepted, unsafe_accepted: those of them with a bound of at most the threshold.
        spent: sum of the bounds of accepted actions.
        accepted: int, actions accepted.
        harmed: whether an accepted action's outcome was harmful.
        outside_at: int, observations when the outside forecaster refuted the class; -1 if it never did.
        empty_at: int, observations when the running intersection was empty; -1 if it never was.
    """

    failed_at: jax.Array
    log_weight: jax.Array
    steps: jax.Array
    excess: jax.Array
    safe: jax.Array
    safe_accepted: jax.Array
    unsafe: jax.Array
    unsafe_accepted: jax.Array
    spent: jax.Array
    accepted: jax.Array
    harmed: jax.Array
    outside_at: jax.Array
    empty_at: jax.Array


class _Run(NamedTuple):
    """A run on its way.

    Attributes:
        state: of the model.
        log_ratio: log of the truth's posterior over its prior, as the guardrail's posterior has it.
        counts, totals: float64[A], what the outside forecaster has seen.
        score: its prequential score.
        record: what is kept.
    """

    state: State
    log_ratio: jax.Array
    counts: jax.Array
    totals: jax.Array
    score: jax.Array
    record: Record


def _first(before: jax.Array, now: jax.Array, when: jax.Array) -> jax.Array:
    return jnp.where((before < 0) & now, when, before)


def _log_likelihood(model: Model, mean: jax.Array, outcome: jax.Array) -> jax.Array:
    """Log likelihood of an outcome under the truth."""
    if model.noise_sd is None:
        return jnp.log(jnp.where(outcome == 1.0, mean, 1.0 - mean))
    return jax.scipy.stats.norm.logpdf(outcome, mean, model.noise_sd)


def _outcome(model: Model, lane: Lanes, mean: jax.Array, step: jax.Array, key: jax.Array) -> jax.Array:
    if model.noise_sd is not None:
        return mean + model.noise_sd * jax.random.normal(key, (), mean.dtype)
    sampled = (jax.random.uniform(key, (), mean.dtype) < mean).astype(mean.dtype)
    enumerated = ((lane.outcomes >> step) & 1).astype(mean.dtype)
    return jnp.where(lane.outcomes < 0, sampled, enumerated)


def _check(model: Model, threshold: float, run: _Run, lane: Lanes, look: Look, step: jax.Array) -> Record:
    """The account of one check of all actions."""
    kept = run.record
    counts = (kept.failed_at < 0) | (lane.agent != agents.ADVERSARIAL)
    failed = jnp.any(look.bounds < lane.harm - TOLERANCE)
    safe, low = lane.harm <= threshold, look.bounds <= threshold
    # The forecaster's score has what was seen up to now, like the likelihoods; so has the intersection.
    seen = jnp.sum(run.counts).astype(jnp.int32)
    refuted = look.best_log_likelihood < run.score + model.log_delta

    def counted(mask: jax.Array) -> jax.Array:
        return jnp.where(counts, jnp.sum(mask), 0)

    return kept._replace(
        failed_at=_first(kept.failed_at, failed, step),
        steps=kept.steps + counts,
        excess=kept.excess + jnp.where(counts, jnp.sum(jnp.minimum(look.bounds, 1.0) - lane.harm), 0.0),
        safe=kept.safe + counted(safe),
        safe_accepted=kept.safe_accepted + counted(safe & low),
        unsafe=kept.unsafe + counted(~safe),
        unsafe_accepted=kept.unsafe_accepted + counted(~safe & low),
        outside_at=_first(kept.outside_at, refuted, seen),
        empty_at=_first(kept.empty_at, look.empty, seen),
    )


def _step(model: Model, threshold: float, data: Data, step: jax.Array, run: _Run, lane: Lanes) -> _Run:
    look = model.look(data, run.state, lane.alpha)
    record = _check(model, threshold, run, lane, look, step)
    choice_key, outcome_key = jax.random.split(jax.random.fold_in(lane.key, step))

    allowed = budget.affordable(record.spent, look.bounds, lane.budget)
    forecast = (look.mean, look.variance)
    truth = (lane.mean, model.noise_sd)
    threat = agents.threat_of(run.log_ratio, model.log_delta, truth, forecast, look.bounds, lane.harm)
    threat = jnp.where(jnp.isfinite(lane.budget), agents.bargain_of(look.bounds, lane.harm), threat)
    action = agents.choose(lane.agent, look.bounds, look.mean, threat, allowed, choice_key)
    accepted = jnp.any(allowed)

    mean = lane.mean[action]
    outcome = _outcome(model, lane, mean, step, outcome_key)
    harmful = outcome == 1.0 if model.noise_sd is None else outcome > model.harm_above
    times = jnp.where(accepted & ~(lane.withheld & harmful), lane.repeats, 0.0)
    state, log_forecast = model.update(data, look, action, outcome, times)

    log_likelihood = _log_likelihood(model, mean, outcome)
    count, total = run.counts[action], run.totals[action]
    if model.noise_sd is None:
        outside = forecasters.krichevsky_trofimov(count, total, outcome)
    else:
        outside = forecasters.gaussian(count, total, outcome, model.noise_sd)
    reported = (times > 0.0).astype(mean.dtype)
    return _Run(
        state=state,
        log_ratio=run.log_ratio + times * log_likelihood - log_forecast,
        counts=run.counts.at[action].add(reported),
        totals=run.totals.at[action].add(reported * outcome),
        score=run.score + reported * outside,
        record=record._replace(
            log_weight=record.log_weight + log_likelihood,
            spent=budget.spend(record.spent, look.bounds[action], accepted),
            accepted=record.accepted + accepted,
            harmed=record.harmed | (accepted & harmful),
        ),
    )


def _start(model: Model, data: Data) -> _Run:
    zero, whole, never = jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
    record = Record(
        failed_at=never,
        log_weight=zero,
        steps=whole,
        excess=zero,
        safe=whole,
        safe_accepted=whole,
        unsafe=whole,
        unsafe_accepted=whole,
        spent=zero,
        accepted=whole,
        harmed=jnp.zeros((), bool),
        outside_at=never,
        empty_at=never,
    )
    each = jnp.zeros(model.actions)
    return _Run(model.init(data), zero, each, each, zero, record)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _simulate(model: Model, threshold: float, horizon: jax.Array, data: Data, lanes: Lanes) -> Record:
    step_of_all = jax.vmap(functools.partial(_step, model, threshold), in_axes=(None, None, 0, 0))
    start = _start(model, data)
    runs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(lanes.agent), *leaf.shape)), start)

    def advance(step: jax.Array, runs: _Run) -> _Run:
        new = step_of_all(data, step, runs, lanes)
        # Counts of a sum are 64 bits wide; what is carried keeps its type.
        return cast("_Run", jax.tree.map(lambda old, leaf: leaf.astype(old.dtype), runs, new))

    # The number of steps is a traced number, so one program serves every horizon.
    done: _Run = lax.fori_loop(jnp.int32(0), horizon, advance, runs)
    return done.record


def simulate(model: Model, threshold: float, horizon: int, data: Data, lanes: Lanes) -> Record:
    """Play the runs.

    Args:
        model: the class under one bound; programs are kept for each model object.
        threshold: harm up to which an action is called safe and a bound accepts it, for the two shares of acceptance.
        horizon: number of steps; a step is a check of every action and then one observation.
        data: of the class, see `model.Data`.
        lanes: the runs; call it with the same number of runs each time to compile once.
    """
    with jax.enable_x64(True):
        return cast("Record", _simulate(model, threshold, jnp.int32(horizon), data, lanes))
