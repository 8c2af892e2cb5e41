"""How the bounds may be called: any host mode and float format, under vmap and jit, without retracing."""

import logging
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardrail import bounds

H = 11
RANDOM = np.random.default_rng(20250802)
PRIOR = np.log(RANDOM.dirichlet(np.ones(H)))
POSTERIOR = np.log(RANDOM.dirichlet(np.ones(H)))
HARM = RANDOM.random((H, 3))
MEMBERS = RANDOM.random(H) < 0.5
CALLS = {
    "predictive": lambda p, q, h, m: bounds.predictive(p, h),
    "iid": lambda p, q, h, m: bounds.iid(p, h),
    "plausible_set": lambda p, q, h, m: bounds.plausible_set(p, 0.1),
    "plausible": lambda p, q, h, m: bounds.plausible(p, h, 0.1),
    "plausible ordered": lambda p, q, h, m: bounds.plausible(p, h, 0.1, "ordered"),
    "ratio_set": lambda p, q, h, m: bounds.ratio_set(p, q, 0.2),
    "ratio": lambda p, q, h, m: bounds.ratio(p, q, h, 0.2),
    "weak": lambda p, q, h, m: bounds.weak(p, q, h, 0.2),
    "set_bound": lambda p, q, h, m: bounds.set_bound(m, h),
    "intersect": lambda p, q, h, m: bounds.intersect(m, ~m),
    "is_refuted": lambda p, q, h, m: bounds.is_refuted(m),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
ARGUMENTS = (POSTERIOR, PRIOR, HARM, MEMBERS)


def test_every_public_function_is_called_here():
    assert {name.split()[0] for name in CALLS} == set(bounds.__all__)


@each_call
def test_the_host_mode_changes_neither_values_nor_types(call):
    off = call(*ARGUMENTS)
    with jax.enable_x64(True):
        on = call(*ARGUMENTS)
        assert isinstance(on, jax.Array)
    assert off.dtype == on.dtype
    assert off.dtype in (np.float64, np.bool_)
    np.testing.assert_array_equal(np.asarray(off), np.asarray(on))


def test_a_bound_just_above_the_threshold_compares_as_such_in_a_host_without_64_bit_mode():
    """JAX itself would round to float32 and call the two equal: an action accepted above its threshold."""
    bound = bounds.set_bound([True], [[0.1 + 1e-12]])
    assert (bound > 0.1).all()


@each_call
@pytest.mark.parametrize(("mode", "dtype"), [(False, np.float32), (True, np.float64)])
def test_it_works_under_vmap_and_jit_of_the_caller(call, mode, dtype):
    """Without 64-bit mode a caller's jit rounds its arguments to float32; from there on all is float64."""
    arguments = (*(argument.astype(dtype) for argument in ARGUMENTS[:3]), MEMBERS)
    expected = np.asarray(call(*arguments))
    two = tuple(np.stack([argument] * 2) for argument in arguments)
    with jax.enable_x64(mode):
        for mapped in (jax.vmap(call), jax.jit(jax.vmap(call)), jax.vmap(jax.jit(call))):
            result = mapped(*two)
            assert result.dtype == expected.dtype
            for row in np.asarray(result):
                np.testing.assert_allclose(row, expected, rtol=1e-14)
        np.testing.assert_allclose(np.asarray(jax.jit(call)(*arguments)), expected, rtol=1e-14)


def test_vmap_without_64_bit_mode_keeps_the_precision_of_numpy_arrays():
    harm = np.array([[[0.1 + 1e-12]]])
    assert np.asarray(jax.vmap(bounds.set_bound)(np.ones((1, 1), bool), harm)).item() == 0.1 + 1e-12


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, lambda x: np.asarray(x).tolist()], ids=["np", "jax", "list"])
def test_every_float_format_gives_float64(dtype, kind):
    with jax.enable_x64(dtype == "float64"):
        half = kind(jnp.log(jnp.asarray([0.5, 0.25, 0.25], dtype)))
        harm = kind(jnp.asarray([[0.0], [0.25], [0.5]], dtype))
        for bound in (bounds.predictive(half, harm), bounds.ratio(half, half, harm, 1.0), bounds.iid(half, harm)):
            assert bound.dtype == np.float64
        assert np.asarray(bounds.ratio_set(half, half, 1.0)).all()
        assert np.asarray(bounds.plausible_set(half, 0.25)).all()


def test_integers_and_booleans_are_numbers():
    assert np.asarray(bounds.predictive([0], [[True, False]])).tolist() == [1.0, 0.0]


def test_the_slack_covers_what_storing_a_posterior_in_float32_costs():
    """Every hypothesis stands exactly at the cut before it is rounded; none may be left out."""
    random = np.random.default_rng(20250803)
    prior = np.log(random.dirichlet(np.full(2000, 0.05)) + 1e-12)
    prior -= np.logaddexp.reduce(prior)
    posterior = np.concatenate([prior[:-1] + np.log(0.05), [0.0]])
    posterior[-1] = np.log1p(-np.exp(posterior[:-1]).sum())
    single = bounds.ratio_set(posterior.astype(np.float32), prior.astype(np.float32), np.float32(0.05))
    assert np.asarray(single).all()
    assert not (posterior.astype(np.float32) >= prior.astype(np.float32) + np.log(np.float32(0.05))).all(), "no premise"


@pytest.mark.parametrize("mode", [False, True])
def test_alpha_delta_and_slack_may_be_traced(mode):
    levels = np.array([0.0, 1e-4, 0.1, 0.5, 1.0])
    with jax.enable_x64(mode):
        rows = jax.vmap(bounds.plausible_set, in_axes=(None, 0))(POSTERIOR, levels)
        for level, row in zip(levels, np.asarray(rows), strict=True):
            np.testing.assert_array_equal(row, np.asarray(bounds.plausible_set(POSTERIOR, float(level))))
        rows = jax.jit(jax.vmap(bounds.ratio_set, in_axes=(None, None, 0)))(POSTERIOR, PRIOR, levels[1:])
        for level, row in zip(levels[1:], np.asarray(rows), strict=True):
            np.testing.assert_array_equal(row, np.asarray(bounds.ratio_set(POSTERIOR, PRIOR, float(level))))
        slack = jax.jit(lambda s: bounds.ratio_set(POSTERIOR, PRIOR, 0.9, slack=s))(0.05)
        np.testing.assert_array_equal(slack, np.asarray(bounds.ratio_set(POSTERIOR, PRIOR, 0.9, slack=0.05)))


@each_call
def test_a_second_call_of_the_same_shapes_traces_nothing(call, caplog):
    def traces(arguments):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, logger="jax"), jax.log_compiles(True):
            call(*arguments)
        return [record for record in caplog.records if "tracing" in record.getMessage()]

    fresh = tuple(np.concatenate([argument] * 97) for argument in ARGUMENTS)  # a shape that no other test uses
    assert traces(fresh), "the counter counts nothing"
    assert not traces(tuple(np.array(argument) for argument in fresh))


def test_another_alpha_or_delta_traces_nothing(caplog):
    bounds.plausible_set(POSTERIOR, 0.1)
    bounds.ratio(POSTERIOR, PRIOR, HARM, 0.1)
    with caplog.at_level(logging.DEBUG, logger="jax"), jax.log_compiles(True):
        for level in (1, 0.5, np.float32(0.25), jnp.asarray(0.125)):
            bounds.plausible_set(POSTERIOR, level)
            bounds.ratio(POSTERIOR, PRIOR, HARM, level)
    # Converting a jax.Array to a Python number may compile; the kernels must not.
    assert not [r for r in caplog.records if "_plausible" in r.getMessage() or "_ratio" in r.getMessage()]


def test_a_kernel_holds_no_host_round_trip():
    with jax.enable_x64(True):
        for call in CALLS.values():
            text = str(jax.make_jaxpr(call)(*ARGUMENTS))
            assert "callback" not in text
            assert "f32" not in text


def test_threads_of_different_modes_do_not_disturb_each_other():
    results = []

    def work(mode):
        with jax.enable_x64(mode):
            for _ in range(20):
                results.append((mode, jnp.zeros(1).dtype, bounds.ratio(POSTERIOR, PRIOR, HARM, 0.2).dtype))

    threads = [threading.Thread(target=work, args=(mode,)) for mode in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {(False, np.dtype("float32"), np.dtype("float64")), (True,) + (np.dtype("float64"),) * 2}


def test_importing_and_calling_leaves_the_configuration_of_a_fresh_process_alone():
    program = """
import jax
before = dict(jax.config.values)
from guardrail import bounds
bound = bounds.ratio([0.0], [0.0], [[0.25]], 0.5)
assert dict(jax.config.values) == before, "configuration changed"
assert bound.dtype == "float64" and bound.tolist() == [0.25]
import jax.numpy as jnp
assert jnp.zeros(1).dtype == "float32"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.predictive(POSTERIOR, HARM[:5]), r"\(11,\) and harm of shape \(5, 3\)"),
        (lambda: bounds.iid(POSTERIOR, HARM[:5]), r"\(11,\) and harm of shape \(5, 3\)"),
        (lambda: bounds.plausible(POSTERIOR, HARM[:5], 0.1), r"\(11,\) and harm of shape \(5, 3\)"),
        (lambda: bounds.ratio(POSTERIOR, PRIOR, HARM[:5], 0.1), r"\(11,\) and harm of shape \(5, 3\)"),
        (lambda: bounds.weak(POSTERIOR, PRIOR, HARM[:5], 0.1), r"\(11,\) and harm of shape \(5, 3\)"),
        (lambda: bounds.set_bound(MEMBERS, HARM[:5]), r"\(11,\) and harm of shape \(5, 3\)"),
        (lambda: bounds.ratio_set(POSTERIOR, PRIOR[:5], 0.1), r"\(11,\) and log_prior of shape \(5,\)"),
        (lambda: bounds.ratio(POSTERIOR, PRIOR[:5], HARM, 0.1), r"\(11,\) and log_prior of shape \(5,\)"),
        (lambda: bounds.weak(POSTERIOR, PRIOR[:1], HARM, 0.1), r"\(11,\) and log_prior of shape \(1,\)"),
        (lambda: bounds.predictive(POSTERIOR, HARM[:, 0]), r"harm must be float\[H, A\], got shape \(11,\)"),
        (lambda: bounds.plausible_set(HARM, 0.1), r"log_posterior must be float\[H\], got shape \(11, 3\)"),
        (lambda: bounds.ratio_set(POSTERIOR, 0.0, 0.1), r"log_prior must be float\[H\], got shape \(\)"),
        (lambda: bounds.plausible_set(POSTERIOR, [0.1, 0.2]), r"alpha must be a scalar, got shape \(2,\)"),
        (lambda: bounds.ratio_set(POSTERIOR, PRIOR, [0.1]), r"delta must be a scalar, got shape \(1,\)"),
        (lambda: bounds.is_refuted(np.zeros((2, 2), bool)), r"members must be bool\[H\], got shape \(2, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bad", [["a"], [None], [1j]], ids=["text", "none", "complex"])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(TypeError, match="log_posterior must hold real numbers"):
        bounds.predictive(bad, [[0.1]])


def test_no_hypotheses_and_no_actions():
    nobody, nothing = np.zeros(0), np.zeros((0, 2))
    for bound in (
        bounds.predictive(nobody, nothing),
        bounds.iid(nobody, nothing),
        bounds.plausible(nobody, nothing, 0.1),
        bounds.plausible(nobody, nothing, 0.1, "ordered"),
        bounds.ratio(nobody, nobody, nothing, 0.1),
        bounds.weak(nobody, nobody, nothing, 0.1),
    ):
        assert np.asarray(bound).tolist() == [1.0, 1.0]
    assert bounds.plausible_set(nobody, 0.1).shape == bounds.ratio_set(nobody, nobody, 0.1).shape == (0,)
    assert bounds.ratio(POSTERIOR, PRIOR, np.zeros((H, 0)), 0.1).shape == (0,)


def test_subnormal_numbers_count_as_0_and_never_tighten():
    """XLA flushes them: an alpha is then 0 (everything), a delta no level, a harm of none is tied with 0."""
    tiny = 5e-324
    assert np.asarray(bounds.plausible_set([0.0, -np.inf], tiny)).all()
    assert np.asarray(bounds.ratio_set([0.0, -np.inf], np.log([0.5, 0.5]), tiny)).all()
    assert np.asarray(bounds.iid([0.0, -np.inf], [[tiny], [0.5]])).tolist() == [0.5]
