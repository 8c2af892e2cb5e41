"""Refunds that turn out to be abusive: a rate of its own for each customer, drawn around a common one."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

CUSTOMERS = 6


def refunds(inputs):
    common = numpyro.sample("common", dist.Normal(-3.5, 1.0))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    slope = numpyro.sample("slope", dist.Normal(0.5, 0.25))  # for each factor of e in the amount
    with numpyro.plate("customers", CUSTOMERS):
        customer = numpyro.sample("customer", dist.Normal(common, spread))
    logits = customer[inputs["category"]] + slope * jnp.log(inputs["amount"] / 50.0)
    numpyro.sample("abusive", dist.Bernoulli(logits=logits))
