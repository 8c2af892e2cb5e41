"""Posteriors by particles, against a model whose posterior and plausible region have closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logsumexp

from guardrail.domain import GuaranteeKind, IntervalHarm, ReasonCode
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses import program_posterior
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.hypotheses.program_inputs import ProgramInputs
from guardrail.hypotheses.program_model import ProgramModel
from guardrail.hypotheses.program_posterior import ProgramPosterior, effective_size
from guardrail.oracles import particles
from guardrail.oracles.particles import ParticleOracle
from guardrail.policy.program_schema import NumpyroProgram, PosteriorUse

HARM = IntervalHarm(2.0, math.inf, inside=True)
DELTA = 0.05
XS = np.array([0.5, 1.0, -1.0, 2.0, 1.5, -0.5, 1.0, 0.8, -1.2, 0.3])
YS = np.array([0.1, 0.9, -0.2, 1.4, 0.3, -0.9, 0.4, 1.2, -0.6, -0.4])


def slope(inputs):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a * inputs["x"], 0.8))


def make(model=slope, delta=DELTA, **settings):
    use = PosteriorUse(kind="posterior", **{"method": "nuts", "particles": 1000, "refresh_every": 5, **settings})
    spec = NumpyroProgram(family="numpyro", model="m.py:f", use=use)
    inputs = ProgramInputs((("x", None),), spec)
    with jax.enable_x64(True):
        program = ProgramModel(model, "m.py:f", inputs, "y", HARM)
        key, row = jax.random.key(use.seed), jnp.ones(1)
        program.inspect(key, row)
        return ParticleOracle(ProgramPosterior(program, use, key, row), inputs, use, delta)


def exact(xs, ys):
    """Mean and standard deviation of the posterior of the slope, and the log evidence."""
    precision = 1.0 + (xs**2).sum() / 0.64
    mean = (xs * ys).sum() / 0.64 / precision
    cover = 0.64 * np.eye(len(xs)) + np.outer(xs, xs)
    return mean, precision**-0.5, stats.multivariate_normal(np.zeros(len(xs)), cover).logpdf(ys)


def largest_harm(xs, ys, score, look):
    """The largest harm over the region, on a fine grid."""
    a = np.linspace(-4.0, 4.0, 400_001)
    log_likelihood = stats.norm.logpdf(ys[:, None], xs[:, None] * a, 0.8).sum(axis=0)
    return stats.norm.sf(2.0, a[log_likelihood >= score + math.log(DELTA)] * look, 0.8).max()


def mean_and_sd(state):
    weight = np.exp(np.asarray(state.particles.log_weight) - logsumexp(state.particles.log_weight))
    z = np.asarray(state.particles.z)[:, 0]
    mean = weight @ z
    return mean, math.sqrt(weight @ (z - mean) ** 2)


@pytest.mark.parametrize(
    "method", [pytest.param("nuts", marks=pytest.mark.slow), pytest.param("svi", marks=pytest.mark.slow), "smc"]
)
def test_posterior_and_bound_are_those_of_the_closed_form(method):
    oracle = make(method=method)
    state = oracle.observe(oracle.init(), XS[:, None], YS)
    mean, sd, evidence = exact(XS, YS)
    assert state.failure is None
    assert mean_and_sd(state) == pytest.approx((mean, sd), abs=0.05)
    # The score is that of forecasts made before each outcome: near the evidence, and never one made afterwards.
    assert state.score == pytest.approx(evidence, abs=0.25)
    for look in (-1.0, 1.0, 3.0):
        (bound,) = oracle.bound(state, np.array([[look]]))
        assert bound.value == pytest.approx(largest_harm(XS, YS, state.score, look), rel=0.02, abs=1e-6)
        assert bound.predictive == pytest.approx(stats.norm.sf(2.0, mean * look, math.hypot(0.8, sd * look)), abs=0.02)
        assert bound.guarantee.kind is GuaranteeKind.ESTIMATE
        assert bound.guarantee.confidence == 0.0
        assert set(bound.cautious.parameters) == {"a"}
    # A state is a function of the observations, however they come, and comes back from its arrays.
    again = oracle.init()
    for x, y in zip(XS, YS, strict=True):
        again = oracle.observe(again, np.array([[x]]), np.array([y]))
    assert all(np.array_equal(v, oracle.dump(again)[n]) for n, v in oracle.dump(state).items())
    loaded = oracle.load(oracle.dump(state))
    assert oracle.bound(loaded, np.ones((1, 1))) == oracle.bound(state, np.ones((1, 1)))
    with pytest.raises(SnapshotInvalid):
        oracle.load({**oracle.dump(state), "z": np.zeros((3, 1))})


def test_between_two_runs_particles_are_weighted_by_what_came():
    oracle = make(refresh_every=1000, particles=4000)
    state = oracle.observe(oracle.init(), XS[:4, None], YS[:4])
    mean, sd, evidence = exact(XS[:4], YS[:4])
    assert mean_and_sd(state) == pytest.approx((mean, sd), abs=0.05)
    assert state.score == pytest.approx(evidence, abs=0.05)
    assert oracle.summary(state).top["a"] == pytest.approx(mean, abs=0.05)
    detail = oracle.detail(state, 5)
    (told,) = detail.parameters
    assert (told.mean, told.deviation) == pytest.approx(mean_and_sd(state))
    assert (told.name, told.plausible_low, told.plausible_high, detail.hypotheses) == ("a", None, None, ())


def test_collapsed_weights_reject():
    oracle = make(refresh_every=1000, particles=200)
    state = oracle.observe(oracle.init(), np.full((200, 1), 3.0), np.full(200, 4.5))
    (bound,) = oracle.bound(state, np.ones((1, 1)))
    assert (bound.value, bound.failure.code) == (1.0, ReasonCode.DIAGNOSTICS_FAILED)
    assert "m.py:f: the weights have collapsed since the last refresh: effective sample size" in bound.failure.message
    assert oracle.failed(state)
    assert oracle.detail(state, 5).parameters == ()


@pytest.mark.slow
def test_a_run_that_has_not_converged_rejects_until_one_has(monkeypatch):
    oracle = make()
    monkeypatch.setattr(program_posterior, "split_gelman_rubin", lambda chains: np.array([1.7]))
    state = oracle.observe(oracle.init(), XS[:5, None], YS[:5])
    (bound,) = oracle.bound(state, np.ones((1, 1)))
    assert bound.failure.code is ReasonCode.DIAGNOSTICS_FAILED
    assert "nuts has not converged: largest split R-hat 1.7 (at most 1.05)" in bound.failure.message
    monkeypatch.undo()
    state = oracle.observe(state, XS[5:, None], YS[5:])
    assert oracle.bound(state, np.ones((1, 1)))[0].failure is None


def test_an_elbo_that_still_improves_rejects():
    def far(inputs):
        a = numpyro.sample("a", dist.Normal(0.0, 1000.0))
        numpyro.sample("y", dist.Normal(a * inputs["x"] + 50.0, 0.8))

    oracle = make(far, method="svi", warmup=50, refresh_every=10)
    state = oracle.observe(oracle.init(), XS[:, None], YS + 400.0)
    assert state.failure.code is ReasonCode.DIAGNOSTICS_FAILED


def test_what_is_no_number_fails_for_good(monkeypatch):
    def odd(inputs):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.where(inputs["x"] > 9.0, jnp.nan, a), 0.8))

    oracle = make(odd)
    bad = oracle.observe(oracle.init(), np.array([[10.0], [1.0]]), np.zeros(2))
    assert bad.failure.code is ReasonCode.MODEL_FAILED
    assert oracle.count(bad) == 2
    assert oracle.bound(oracle.init(), np.array([[10.0]]))[0].failure.code is ReasonCode.MODEL_FAILED
    monkeypatch.setattr(particles, "MAX_OBSERVATIONS", 2)
    many = oracle.observe(oracle.init(), np.ones((3, 1)), np.zeros(3))
    assert "at most 2 observations" in many.failure.message


def test_a_discrete_latent_site_is_refused():
    def mixture(inputs):
        kind = numpyro.sample("kind", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(kind * inputs["x"], 1.0))

    with pytest.raises(ProgramError, match="has a discrete latent site 'kind'"):
        make(mixture)


def test_predictive_harm_alone_promises_nothing():
    oracle = make(delta=None)
    (bound,) = oracle.bound(oracle.init(), np.array([[1.0]]))
    assert bound.value == bound.predictive
    assert bound.guarantee.kind is GuaranteeKind.NONE


def test_effective_size():
    assert effective_size(jnp.zeros(10)) == pytest.approx(10.0)
    assert effective_size(jnp.array([0.0, -jnp.inf])) == pytest.approx(1.0)
    assert effective_size(jnp.array([jnp.nan, 0.0])) == 0.0
    assert effective_size(jnp.full(3, -jnp.inf)) == 0.0
