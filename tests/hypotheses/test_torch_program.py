"""Pyro programs: the same class in NumPyro gives the same bounds, and what is no hypothesis class is told."""

import math

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pdist
import pytest
import torch

from guardrail.domain import BooleanHarm, IntervalHarm, ModelHarm
from guardrail.hypotheses.program import ProgramFamily
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.hypotheses.program_inputs import ProgramInputs
from guardrail.hypotheses.torch_program import TorchProgramFamily
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.policy.program_schema import NumpyroProgram, PyroProgram
from guardrail.policy.schema import RatioBound

ABOVE = IntervalHarm(2.0, math.inf, inside=True)
FEATURES = (("x", None), ("v", 2))
RATIO = RatioBound(kind="ratio", delta=0.05, running=True)


@pytest.fixture(autouse=True)
def _as_in_a_process_of_its_own():
    # Callbacks may run on a thread of XLA's, which knows the process-wide mode only.
    wide = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.distributions.Distribution.set_default_validate_args(False)
    with pyro.validation_enabled(False):
        yield
    torch.distributions.Distribution.set_default_validate_args(__debug__)
    torch.set_default_dtype(before)
    jax.config.update("jax_enable_x64", wide)


def spec(kind, draws=2000):
    use = {"kind": "sampled", "draws": draws, "seed": 3}
    return kind(
        family="pyro" if kind is PyroProgram else "numpyro",
        model="m.py:f",
        use=use,
        category="c",
        categories=("a", "b", "c"),
    )


def make(model, harm=ABOVE, latents=None, draws=1000):
    chosen = spec(PyroProgram, draws)
    return TorchProgramFamily(model, "m.py:f", chosen, ProgramInputs(FEATURES, chosen), "y", harm, latents)


def jax_model(outcome):
    def model(inputs):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("groups", 3):
            effect = numpyro.sample("effect", dist.Normal(mean, 0.5))
        weights = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        centre = effect[inputs["category"]] + (weights * inputs["v"]).sum() * jax.numpy.tanh(inputs["x"])
        numpyro.sample("y", outcome(dist, centre))

    return model


def torch_model(outcome):
    def model(inputs):
        mean = pyro.sample("mean", pdist.Normal(0.0, 1.0))
        with pyro.plate("groups", 3):
            effect = pyro.sample("effect", pdist.Normal(mean, 0.5))
        weights = pyro.sample("w", pdist.Normal(0.0, 1.0).expand([2]).to_event(1))
        centre = effect[inputs["category"]] + (weights * inputs["v"]).sum() * torch.tanh(inputs["x"])
        pyro.sample("y", outcome(pdist, centre))

    return model


OUTCOMES = {
    "normal": (lambda d, centre: d.Normal(centre, 0.7), ABOVE, (0.4, -0.8, 1.1)),
    "bool": (lambda d, centre: d.Bernoulli(logits=centre), BooleanHarm(True), (1.0, 0.0, 0.0)),
    "inside": (lambda d, centre: d.Laplace(centre, 1.0), IntervalHarm(-1.0, 0.5, inside=False), (0.4, 0.3, -2.0)),
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_numpyro_and_pyro_give_the_same_bounds_for_the_same_draws(kind):
    outcome, harm, ys = OUTCOMES[kind]
    chosen = spec(NumpyroProgram)
    first = ProgramFamily(jax_model(outcome), "m.py:f", chosen, ProgramInputs(FEATURES, chosen), "y", harm)
    draws = {site: np.asarray(first.arrays[site]) for site in first.row_arrays}
    draws = {site: values.reshape(first.size, *values.shape[2:]) for site, values in draws.items()}
    second = make(torch_model(outcome), harm, draws, draws=2000)
    assert second._vectorised
    oracles = [EnumeratedOracle(family, RATIO) for family in (first, second)]
    rows = np.stack([first.encode([x, 0.5, -x], name) for x, name in ((0.2, "a"), (1.0, "b"), (-0.7, "a"))])
    looks = np.stack([first.encode([1.5, 1.0, 0.3], name) for name in ("a", "b", "c")])
    states = [oracle.observe(oracle.init(), rows, np.array(ys)) for oracle in oracles]
    left, right = (oracle.bound(state, looks) for oracle, state in zip(oracles, states, strict=True))
    for a, b in zip(left, right, strict=True):
        assert a.failure is b.failure is None
        assert a.value == pytest.approx(b.value, abs=1e-6)
        assert a.predictive == pytest.approx(b.predictive, abs=1e-6)
        assert a.cautious.name == b.cautious.name
        assert a.cautious.parameters == pytest.approx(b.cautious.parameters)
    assert first.assumptions == second.assumptions


def test_programs_that_differ_in_what_outcomes_say_have_other_fingerprints():
    def spread(scale):
        def model(inputs):
            a = pyro.sample("a", pdist.Normal(0.0, 1.0))
            pyro.deterministic("harm", torch.sigmoid(a))
            pyro.sample("y", pdist.Normal(a, scale))

        return model

    prints = [make(spread(scale), ModelHarm()).verify() for scale in (1.0, 1.0, 2.0)]
    assert prints[0] == prints[1] != prints[2]


def test_a_model_that_cannot_be_vectorised_gives_the_same_one_by_one():
    outcome = OUTCOMES["normal"][0]
    together = make(torch_model(outcome))

    def branching(inputs):
        torch_model(outcome)(inputs)
        if float(inputs["x"].abs() + pyro.sample("extra", pdist.Normal(0.0, 1.0))) > 1e9:  # vmap cannot look into it
            raise ValueError

    single = make(branching)
    assert together._vectorised
    assert not single._vectorised
    assert single.verify() == make(branching).verify()
    draws = {**{site: values.numpy() for site, values in together._latents.items()}, "extra": np.zeros(1000)}
    single._latents = {site: torch.as_tensor(values) for site, values in draws.items()}
    row = together.encode([0.3, 1.0, 2.0], "b")
    left, right = (
        family._of_blocks([0], lambda latents, family=family: family._harm_probability(latents, row, 0.0))
        for family in (together, single)
    )
    assert np.allclose(left, right, rtol=0, atol=1e-12)


def bad(body):
    def model(inputs):
        a = pyro.sample("a", pdist.Normal(0.0, 1.0))
        body(a, inputs)

    return model


def ordinary(a, inputs):
    pyro.sample("y", pdist.Normal(a * inputs["x"], 1.0))


CALLS = []


def changing(a, inputs):
    CALLS.append(1)
    if len(CALLS) > 3:
        pyro.sample("new", pdist.Normal(0.0, 1.0))
    ordinary(a, inputs)


def observing(a, inputs):
    pyro.sample("y", pdist.Normal(a, 1.0), obs=torch.tensor(0.0))


def input_prior(a, inputs):
    ordinary(a + pyro.sample("b", pdist.Normal(inputs["x"], 1.0)), inputs)


def clock(a, inputs):
    CALLS.append(1)
    ordinary(a + pyro.sample("b", pdist.Normal(0.1 * len(CALLS), 1.0)), inputs)


def harm_from_outcome(a, inputs):
    pyro.deterministic("harm", (pyro.sample("y", pdist.Normal(a, 1.0)) > 2.0).double())


@pytest.mark.parametrize(
    ("body", "harm", "message"),
    [
        (changing, ABOVE, r"m\.py:f changes its sites between calls \(new\)"),
        (observing, ABOVE, "observes 'y' itself"),
        (input_prior, ABOVE, "has a prior that depends on the inputs"),
        (clock, ABOVE, "is not a function of its seed"),
        (harm_from_outcome, ModelHarm(), "computes site 'harm' from the outcome"),
        (ordinary, ModelHarm(), "say harm once"),
        (ordinary, BooleanHarm(True), "is not over 0 and 1; use Bernoulli"),
        (lambda a, inputs: pyro.sample("y", pdist.StudentT(3.0, a, 1.0)), ABOVE, "has no cdf"),
        (lambda a, inputs: pyro.sample("y", pdist.Poisson(a.exp())), ABOVE, "has a discrete outcome"),
        (lambda a, inputs: ordinary(a + pyro.param("p", torch.tensor(0.0)), inputs), ABOVE, "has a parameter 'p'"),
    ],
)
def test_what_is_no_hypothesis_class(body, harm, message):
    CALLS.clear()
    with pytest.raises(ProgramError, match=message):
        make(bad(body), harm).verify()


def test_a_program_that_changes_later_is_found_when_it_is_asked():
    family = make(bad(ordinary))
    with pytest.raises(ProgramError, match="two calls give different numbers"):
        family._of_blocks([0], noisy)


def noisy(latents):
    CALLS.append(1)
    return latents["a"] + float(len(CALLS))
