"""The classes are what they are said to be."""

from typing import get_args

import jax
import numpy as np
import pytest
from scipy.stats import norm

from simulations.validation import words
from simulations.validation.classes import WORLDS, world
from simulations.validation.config import ClassName
from simulations.validation.worlds import FiniteWorld

FINITE = [name for name in WORLDS if isinstance(world(name), FiniteWorld)]


def test_every_class_can_be_chosen_and_is_explained():
    assert get_args(ClassName) == WORLDS
    assert [world(name).title for name in WORLDS] == list(words.CLASSES)


def test_sizes_reach_from_two_to_a_hundred_thousand():
    assert sorted(world(name).hypotheses for name in FINITE) == [2, 4, 16, 50, 1024, 100_000]


@pytest.mark.parametrize("name", FINITE)
def test_priors_are_distributions_with_no_mass_of_zero(name):
    for log_prior in world(name).priors.values():
        assert np.isfinite(log_prior).all()
        assert np.exp(log_prior).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", FINITE)
def test_means_are_those_of_the_family(name):
    """The outcome at a hypothesis's mean is the most likely of all: the likelihood has its peak there."""
    of_class = world(name)
    chosen = np.random.default_rng(0).integers(of_class.hypotheses, size=5)
    for index in chosen:
        for row, mean in zip(of_class.rows, of_class.mean[index], strict=True):
            with jax.enable_x64(True):
                likelihood = [
                    float(of_class.family.log_likelihood(of_class.family.arrays, row, outcome)[index])
                    for outcome in ((1.0, 0.0) if of_class.noise_sd is None else (mean, mean + of_class.noise_sd))
                ]
            if of_class.noise_sd is None:
                assert np.exp(likelihood) == pytest.approx([mean, 1 - mean])
            else:
                peak = norm.logpdf([0.0, of_class.noise_sd], scale=of_class.noise_sd)
                assert likelihood == pytest.approx(peak)


@pytest.mark.parametrize("name", WORLDS)
def test_true_harm_is_the_probability_of_a_harmful_outcome(name):
    of_class = world(name)
    prior = next(iter(of_class.priors if name in FINITE else of_class.families))
    uniform = np.random.default_rng(1).random((50, of_class.draws))
    truths = of_class.truths(prior, "prior", uniform)
    expected = truths.mean
    if of_class.noise_sd is not None:
        expected = norm.sf(of_class.harm_above, truths.mean, of_class.noise_sd)
    np.testing.assert_allclose(truths.harm, expected, rtol=1e-9)
    assert (truths.harm >= expected * (1 - 1e-12)).all()


@pytest.mark.parametrize("name", [name for name in FINITE if world(name).outside])
def test_truths_outside_the_class_are_outside_of_it(name):
    of_class = world(name)
    for mean in of_class.outside.values():
        assert np.abs(of_class.mean - np.asarray(mean)).max(axis=1).min() > 0.01


def test_the_rarest_is_the_least_likely_and_of_several_the_most_harmful():
    of_class = world("enumerated")
    uniform = np.zeros((2, 1))
    assert of_class.truths("skewed", "rarest", uniform).prior_mass == pytest.approx([0.001, 0.001])
    most = of_class.harm.sum(axis=1).max()
    assert of_class.truths("uniform", "rarest", uniform).harm.sum(axis=1) == pytest.approx([most, most])


def test_truths_are_drawn_from_the_prior():
    uniform = (np.arange(100_000) + 0.5)[:, None] / 100_000
    masses = world("enumerated").truths("skewed", "prior", uniform).prior_mass
    assert {round(m, 4): round(float(np.mean(masses == m)), 3) for m in np.unique(masses)} == {
        0.001: 0.001,
        0.009: 0.009,
        0.09: 0.09,
        0.9: 0.9,
    }
