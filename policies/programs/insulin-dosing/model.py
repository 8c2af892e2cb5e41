"""Glucose two hours after a meal and a dose of insulin, for one patient whose sensitivity is not known."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def patient(inputs):
    sensitivity = numpyro.sample("sensitivity", dist.LogNormal(jnp.log(2.0), 0.5))  # mmol/L less for each unit
    carbohydrate = numpyro.sample("carbohydrate", dist.LogNormal(jnp.log(0.2), 0.3))  # mmol/L more for each gram
    spread = numpyro.sample("spread", dist.LogNormal(jnp.log(0.8), 0.2))  # mmol/L
    expected = inputs["glucose"] + carbohydrate * inputs["carbs"] - sensitivity * inputs["dose"]
    numpyro.sample("glucose_after", dist.StudentT(8.0, expected, spread))
