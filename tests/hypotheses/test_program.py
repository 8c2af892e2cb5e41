"""Finite classes made from NumPyro programs, against NumPy and SciPy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from guardrail.domain import BooleanHarm, GuaranteeKind, IntervalHarm, ModelHarm
from guardrail.hypotheses import program
from guardrail.hypotheses.program import ProgramFamily
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.hypotheses.program_inputs import ProgramInputs
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.policy.program_schema import NumpyroProgram
from guardrail.policy.schema import RatioBound
from guardrail.programs.build import class_bound, estimated

SAMPLED = {"kind": "sampled", "draws": 2000, "seed": 3}
ABOVE = IntervalHarm(2.0, math.inf, inside=True)
DELTA = 0.05


def make(model, *, features=(("x", None),), outcome="y", harm=ABOVE, use=SAMPLED, **spec):
    spec = NumpyroProgram(family="numpyro", model="m.py:f", use=use, **spec)
    return ProgramFamily(model, "m.py:f", spec, ProgramInputs(features, spec), outcome, harm)


def line(inputs):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.LogNormal(0.0, 0.5))
    numpyro.sample("y", dist.Normal(a + b * inputs["x"], 0.7))


def customers(inputs):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("customers", 3):
        effect = numpyro.sample("effect", dist.Normal(mean, 1.0))
    weights = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    logits = effect[inputs["category"]] + jnp.dot(weights, inputs["v"])
    numpyro.sample("bad", dist.Bernoulli(logits=logits))


def latents(family):
    """All latent values of a stored class, [H, ...] for each site."""
    arrays = {site: np.asarray(family.arrays[site]) for site in family.row_arrays}
    return {site: values.reshape(family.size, *values.shape[2:]) for site, values in arrays.items()}


def likelihoods(family, row, outcome):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(family.log_likelihood)(family.arrays, jnp.asarray(row), jnp.asarray(outcome)))


def harms(family, row):
    with jax.enable_x64(True):
        return np.asarray(family.harm_from_score(jax.jit(family.harm_score)(family.arrays, jnp.asarray(row))))


def test_bounds_are_those_of_numpy():
    family = make(line)
    oracle = EnumeratedOracle(family, RatioBound(kind="ratio", delta=DELTA))
    xs, ys = np.array([0.0, 1.0, -1.0, 2.0, 0.5]), np.array([0.3, 0.9, -0.8, 2.2, 0.4])
    state = oracle.observe(oracle.init(), xs[:, None], ys)
    values = latents(family)
    a, b = values["a"], values["b"]
    log_likelihood = stats.norm.logpdf(ys, a[:, None] + b[:, None] * xs, 0.7).sum(axis=1)
    posterior = np.exp(log_likelihood - log_likelihood.max())
    posterior /= posterior.sum()
    members = posterior >= DELTA / family.size
    for x in (-2.0, 0.0, 1.5):
        harm = stats.norm.sf(2.0, a + b * x, 0.7)
        (bound,) = oracle.bound(state, np.array([[x]]))
        assert bound.value == pytest.approx(harm[members].max(), abs=3e-9)
        assert bound.value >= harm[members].max()
        assert bound.predictive == pytest.approx(posterior @ harm, abs=1e-8)
    assert bound.guarantee.kind is GuaranteeKind.THEOREM
    assert bound.guarantee.confidence == 0.95
    assert "2000 hypotheses drawn from the prior of m.py:f with seed 3" in bound.guarantee.assumptions[0]


def test_draws_follow_the_prior_and_their_seed():
    values = latents(make(line, use={**SAMPLED, "draws": 4000}))
    assert len(np.unique(values["a"])) == 4000
    assert stats.kstest(values["a"], "norm").pvalue > 1e-4
    assert stats.kstest(np.log(values["b"]), "norm", (0.0, 0.5)).pvalue > 1e-4
    assert abs(np.corrcoef(values["a"], values["b"])[0, 1]) < 0.08
    other = latents(make(line, use={**SAMPLED, "seed": 4}))
    assert not np.isin(other["a"], values["a"]).any()


def test_more_draws_contain_the_fewer():
    fewer, more = latents(make(line)), latents(make(line, use={**SAMPLED, "draws": 3000}))
    assert np.array_equal(fewer["b"], more["b"][:2000])


def test_a_class_that_is_not_stored_is_the_same(monkeypatch):
    stored = make(
        customers, features=(("v", 2),), outcome="bad", harm=BooleanHarm(True), category="c", categories=("x", "y", "z")
    )
    monkeypatch.setattr(program, "STORED_BYTES", 0)
    remade = make(
        customers, features=(("v", 2),), outcome="bad", harm=BooleanHarm(True), category="c", categories=("x", "y", "z")
    )
    assert remade.row_arrays == {"block"}
    assert stored.row_arrays == {"mean", "effect", "w"}
    row = stored.encode([0.5, -1.0], "y")
    assert np.allclose(likelihoods(stored, row, 1.0), likelihoods(remade, row, 1.0), rtol=0, atol=1e-12)
    assert np.allclose(harms(stored, row), harms(remade, row), rtol=0, atol=1e-12)
    left, right = stored.describe(1234), remade.describe(1234)
    assert left[0] == right[0] == "draw 1234"
    assert left[1] == pytest.approx(right[1], abs=1e-12)
    assert list(left[1]) == ["mean", "effect[0]", "effect[1]", "effect[2]", "w[0]", "w[1]"]


def test_a_slice_of_the_row_arrays_gives_that_slice(monkeypatch):
    for stored_bytes in (0, 2**20):
        monkeypatch.setattr(program, "STORED_BYTES", stored_bytes)
        family = make(line, use={**SAMPLED, "draws": 3000})
        whole = likelihoods(family, [1.0], 0.5), harms(family, [1.0])
        assert {len(family.arrays[name]) for name in family.row_arrays} == {3}
        family.arrays = {name: value[1:] for name, value in family.arrays.items()}
        part = likelihoods(family, [1.0], 0.5), harms(family, [1.0])
        for left, right in zip(whole, part, strict=True):
            assert np.allclose(left[1000:], right, rtol=0, atol=1e-12)


def test_plates_vectors_and_categories_reach_the_program():
    family = make(
        customers, features=(("v", 2),), outcome="bad", harm=BooleanHarm(True), category="c", categories=("x", "y", "z")
    )
    values = latents(family)
    for index, name in enumerate("xyz"):
        row = family.encode([0.5, -1.0], name)
        rate = 1 / (1 + np.exp(-(values["effect"][:, index] + values["w"] @ [0.5, -1.0])))
        assert harms(family, row) == pytest.approx(rate, abs=2e-9)
        assert (harms(family, row) >= rate).all()
        assert likelihoods(family, row, 0.0) == pytest.approx(np.log1p(-rate), abs=1e-9)
    assert np.isnan(likelihoods(family, row, math.nan)).all()
    assert np.isneginf(likelihoods(family, row, 0.5)).all()


def test_a_grid_lies_at_midpoint_quantiles_of_dependent_priors():
    def dependent(inputs):
        a = numpyro.sample("a", dist.Normal(0.0, 2.0))
        b = numpyro.sample("b", dist.Uniform(a, a + 1.0))
        numpyro.sample("y", dist.Normal(a + b * inputs["x"], 1.0))

    family = make(dependent, use={"kind": "grid", "points": {"a": 5, "b": 3}})
    values = latents(family)
    points = list(itertools.product(range(5), range(3)))
    a = [stats.norm.ppf((i + 0.5) / 5, 0, 2) for i, _ in points]
    assert values["a"] == pytest.approx(np.array(a))
    assert values["b"] == pytest.approx(np.array(a) + [(j + 0.5) / 3 for _, j in points])
    assert family.describe(0)[0] == "point 0"
    assert "on a grid" in family.assumptions[0]


@pytest.mark.parametrize("points", [12, 70])
def test_a_large_grid_has_rows_of_bounded_width(points):
    def three(inputs):
        total = sum(numpyro.sample(name, dist.Normal(0.0, 1.0)) for name in "abc")
        numpyro.sample("y", dist.Normal(total * inputs["x"], 1.0))

    family = make(three, use={"kind": "grid", "points": points})
    assert family.size == points**3
    assert family.width <= 4096
    assert family.size % family.width == 0
    last = family.latents_of(family.size - 1)
    assert [float(last[name]) for name in "abc"] == pytest.approx([stats.norm.ppf(1 - 0.5 / points)] * 3)


def test_counts_include_the_end_of_the_interval():
    def counts(inputs):
        rate = numpyro.sample("rate", dist.Exponential(0.3))
        numpyro.sample("y", dist.Poisson(rate * inputs["x"]))

    family = make(counts, harm=IntervalHarm(4.0, math.inf, inside=True))
    rate = latents(family)["rate"]
    assert harms(family, [1.0]) == pytest.approx(stats.poisson.sf(3, rate), abs=3e-9)
    outside = make(counts, harm=IntervalHarm(2.0, 5.0, inside=False))
    expected = stats.poisson.cdf(2, rate) + stats.poisson.sf(4, rate)
    assert harms(outside, [1.0]) == pytest.approx(expected, abs=3e-9)
    assert likelihoods(family, [1.0], 3.0) == pytest.approx(stats.poisson.logpmf(3, rate))
    assert np.isneginf(likelihoods(family, [1.0], 2.5)).all()


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (IntervalHarm(-math.inf, 0.5, True), lambda a: stats.t.cdf(0.5, 3, a)),
        (IntervalHarm(-1.0, 0.5, True), lambda a: stats.t.cdf(0.5, 3, a) - stats.t.cdf(-1.0, 3, a)),
        (IntervalHarm(-1.0, 0.5, False), lambda a: stats.t.sf(0.5, 3, a) + stats.t.cdf(-1.0, 3, a)),
    ],
)
def test_harm_of_an_interval(harm, expected):
    def student(inputs):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.StudentT(3.0, a * inputs["x"], 1.0))

    family = make(student, harm=harm)
    exact = expected(latents(family)["a"])
    assert harms(family, [1.0]) == pytest.approx(exact, abs=3e-9)
    assert (harms(family, [1.0]) >= exact).all()


def with_harm(value):
    def model(inputs):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a, 1.0))
        numpyro.deterministic("harm", value(a, inputs["x"]))

    return model


def test_harm_from_the_programs_own_site():
    family = make(with_harm(lambda a, x: jax.nn.sigmoid(a * x)), harm=ModelHarm())
    a = latents(family)["a"]
    exact = 1 / (1 + np.exp(-2 * a))
    assert harms(family, [2.0]) == pytest.approx(exact, abs=3e-9)
    assert (harms(family, [2.0]) > exact).all(), "the program's own arithmetic may err"


@pytest.mark.parametrize("value", [lambda a, x: 1.5 + 0 * a, lambda a, x: a * jnp.nan, lambda a, x: -0.1 - a**2])
def test_a_site_harm_that_is_no_probability_gives_no_bound(value):
    oracle = EnumeratedOracle(make(with_harm(value), harm=ModelHarm()), RatioBound(kind="ratio", delta=DELTA))
    (bound,) = oracle.bound(oracle.init(), np.ones((1, 1)))
    assert bound.value == 1.0
    assert bound.failure is not None


def mixture(inputs):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", NoCdf(a * inputs["x"], 1.0))


class NoCdf(dist.Normal):
    def cdf(self, value):
        raise NotImplementedError


def test_simulated_harm_is_an_upper_limit_and_an_estimate():
    simulation = {"samples": 400, "delta": 0.01}
    family = make(mixture, monte_carlo=simulation)
    exact = stats.norm.sf(2.0, latents(family)["a"] * 1.5)
    simulated = harms(family, [1.5])
    # One simulation serves all hypotheses, so errors come together: a limit of 1 % each, and nearly all hold here.
    assert (simulated >= exact).mean() >= 0.95
    assert (simulated - exact).max() < 0.2
    limits = np.asarray(family.arrays["limits"])
    for harmful in (0, 1, 37, 399):
        assert stats.binom.cdf(harmful, 400, limits[harmful]) == pytest.approx(0.01, rel=1e-4)
    assert limits[400] == 1.0
    spec = family._spec
    assert class_bound(spec, RatioBound(kind="ratio", delta=0.05)).delta == pytest.approx(0.04)
    oracle = EnumeratedOracle(family, class_bound(spec, RatioBound(kind="ratio", delta=0.05)))
    guarantee = estimated(oracle.guarantee, spec)
    assert (guarantee.kind, guarantee.confidence) == (GuaranteeKind.ESTIMATE, 0.0)
    assert "one check at a time" in guarantee.assumptions[0]


# ---------------------------------------------------------------- programs that are no hypothesis class


def bad(body):
    def model(inputs):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        body(a, inputs)

    return model


def ordinary(a, inputs):
    numpyro.sample("y", dist.Normal(a * inputs["x"], 1.0))


CALLS = itertools.count()


def changing(a, inputs):
    if next(CALLS) >= 2:
        numpyro.sample("new", dist.Normal(0.0, 1.0))
    ordinary(a, inputs)


def observing(a, inputs):
    numpyro.sample("y", dist.Normal(a, 1.0), obs=0.0)


def with_factor(a, inputs):
    numpyro.factor("penalty", -(a**2))
    ordinary(a, inputs)


def with_parameter(a, inputs):
    ordinary(a + numpyro.param("p", 0.0), inputs)


def input_prior(a, inputs):
    b = numpyro.sample("b", dist.Normal(inputs["x"], 1.0))
    ordinary(a + b, inputs)


def outcome_prior(a, inputs):
    y = numpyro.sample("y", dist.Normal(a, 1.0))
    numpyro.sample("later", dist.Normal(y, 1.0))


def random_numbers(a, inputs):
    ordinary(a + np.random.default_rng().normal(), inputs)


def many_outcomes(a, inputs):
    numpyro.sample("y", dist.Normal(a, 1.0).expand([2]))


def no_number(a, inputs):
    b = numpyro.sample("b", dist.Normal(0.0, 1e200)) * 1e200 * numpyro.sample("c", dist.Delta(jnp.inf))
    ordinary(a + b, inputs)


def harm_from_outcome(a, inputs):
    y = numpyro.sample("y", dist.Normal(a, 1.0))
    numpyro.deterministic("harm", y > 2.0)


def scaled(a, inputs):
    with numpyro.handlers.scale(scale=2.0):
        ordinary(a, inputs)


WRONG = [
    (changing, {}, r"m\.py:f changes its sites between calls \(new\)"),
    (observing, {}, "observes 'y' itself"),
    (with_factor, {}, "observes 'penalty' itself"),
    (with_parameter, {}, "has a parameter 'p'"),
    (input_prior, {}, "'b' from a prior that depends on the inputs"),
    (outcome_prior, {}, "draws the latent site 'later' from the outcome"),
    (random_numbers, {}, "is not a function of its seed"),
    (many_outcomes, {}, r"array of shape \[2\]; one outcome is one number"),
    (no_number, {}, "'c' that is no finite number"),
    (scaled, {}, "scales 'y'"),
    (ordinary, {"outcome": "z"}, "has no sample site 'z', the policy's outcome; its sample sites are: a, y"),
    (ordinary, {"harm": ModelHarm()}, "has no deterministic site 'harm' and the policy has no field harm"),
    (harm_from_outcome, {"harm": ModelHarm()}, "computes site 'harm' from the outcome"),
    (harm_from_outcome, {}, "has a site 'harm' and the policy has a field harm; keep one"),
    (ordinary, {"harm": BooleanHarm(True)}, "not distributed over 0 and 1 only"),
    (ordinary, {"monte_carlo": {"samples": 100, "delta": 0.01}}, "monte_carlo has no effect"),
    (ordinary, {"use": {"kind": "grid", "points": {"b": 3}}}, r"has the latent sites a; use\.points names b"),
]


@pytest.mark.parametrize(
    ("body", "options", "message"), WRONG, ids=[f"{b.__name__}-{i}" for i, (b, _, _) in enumerate(WRONG)]
)
def test_what_is_no_hypothesis_class(body, options, message):
    global CALLS
    CALLS = itertools.count()
    with pytest.raises(ProgramError, match=message):
        make(bad(body), **options).verify()


def test_programs_that_need_what_they_lack():
    with pytest.raises(ProgramError, match="has no cdf"):
        make(mixture)
    with pytest.raises(ProgramError, match="samples nothing but its outcome"):
        make(lambda inputs: numpyro.sample("y", dist.Normal(inputs["x"], 1.0)))

    def gamma(inputs):
        ordinary(numpyro.sample("g", dist.Weibull(1.0, 2.0)), inputs)

    with pytest.raises(ProgramError, match="'g' is Weibull, whose quantile function NumPyro lacks"):
        make(gamma, use={"kind": "grid", "points": 5})

    def vector(inputs):
        ordinary(numpyro.sample("v", dist.Normal(0.0, 1.0).expand([2]))[0], inputs)

    with pytest.raises(ProgramError, match=r"'v' is an array of shape \[2\]"):
        make(vector, use={"kind": "grid", "points": 5})


def test_equal_programs_have_equal_fingerprints():
    assert make(line).verify() == make(line).verify()


def test_a_program_that_differs_at_another_input_has_another_fingerprint():
    def away(scale):
        def model(inputs):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(a, jnp.where(inputs["x"] == 1.0, 1.0, scale)))

        return model

    prints = {make(away(scale)).verify() for scale in (1.0, 2.0)}
    examples = {"prior_predictive": {"inputs": ({"x": 1.0}, {"x": 2.0}, {"x": 1.0})}}
    prints |= {make(away(scale), **examples).verify() for scale in (3.0, 4.0)}
    assert len(prints) == 4
