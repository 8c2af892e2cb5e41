"""Policies whose hypotheses are programs, to be written into a folder: an ordinary one, and one that can be broken."""

POLICY = """\
schema: guardrail/v1
name: p
description: a program
context: {x: number}
features: {x: context.x}
hypotheses:
  family: numpyro
  model: model.py:model
  use: {kind: sampled, draws: 1000, seed: 1}
  prior_predictive: {inputs: [{x: 1.0}]}
  limits: {seconds: 2, load_seconds: 120, memory_mib: 1024}
outcome: {name: y, type: number}
harm: outcome.y > 5.0
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.1}
"""

MODEL = """\
import numpyro
import numpyro.distributions as dist


def model(inputs):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a * inputs["x"], 1.0))
"""

TROUBLE = """\
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

KEPT = []


def trouble(x, a):
    print("what a program prints does not disturb the protocol", flush=True)
    x = float(np.ravel(x)[0])
    if x == 200.0:
        raise RuntimeError("out of order")
    if x == 300.0:
        os._exit(7)
    if x == 400.0:
        KEPT.append(np.ones(3 * 2**30 // 8))
    while x == 500.0:
        pass
    return np.asarray(a)


def model(inputs):
    x = inputs["x"]
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    out = jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a))
    a = jax.pure_callback(trouble, out, x, a, vmap_method="broadcast_all")
    spin = jax.lax.while_loop(lambda n: (n < 3) | (x == 600.0), lambda n: n + 1, 0)
    a = jnp.where(x == 100.0, jnp.nan, a) + 0.0 * spin
    numpyro.sample("y", dist.Normal(a * x, 1.0))
"""


def write(folder, *edits, model=MODEL, policy=POLICY):
    """Write a policy's folder; (old, new) pairs edit the policy. Returns the policy's path."""
    for old, new in edits:
        assert old in policy, old
        policy = policy.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "policy.yaml").write_text(policy)
    (folder / "model.py").write_text(model)
    return folder / "policy.yaml"
