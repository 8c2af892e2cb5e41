"""A batch reactor with an exothermic reaction A -> B whose kinetics are not known exactly.

Concentration c (mol/L) and temperature T (K) over one hour, t in minutes:

    dc/dt = -k(T) c,   dT/dt = rise k(T) c - cooling (T - T_jacket),   k(T) = k_400 exp(-E (1/T - 1/400 K))
"""

import diffrax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

MINUTES = jnp.linspace(0.0, 60.0, 61)
"""The thermometer is read once a minute."""
REFERENCE = 400.0
HOTTEST = 1_000.0
"""What counts as the reading where the solver gives up: beyond any limit."""


def slopes(t, state, parameters):
    rate, activation, rise, cooling, jacket = parameters
    concentration, temperature = state
    speed = rate * jnp.exp(-activation * (1.0 / temperature - 1.0 / REFERENCE)) * concentration
    return -speed, rise * speed - cooling * (temperature - jacket)


def hottest_reading(concentration, temperature, parameters):
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slopes),
        diffrax.Tsit5(),
        t0=0.0,
        t1=60.0,
        dt0=0.5,
        y0=(concentration, temperature),
        args=parameters,
        saveat=diffrax.SaveAt(ts=MINUTES),
        stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
        max_steps=2_000,
        throw=False,
    )
    peak = jnp.max(solution.ys[1])
    return jnp.where(jnp.isfinite(peak), jnp.minimum(peak, HOTTEST), HOTTEST)


def reactor(inputs):
    rate = numpyro.sample("rate", dist.LogNormal(jnp.log(0.5), 0.4))  # at 400 K, per minute
    activation = numpyro.sample("activation", dist.Normal(9_000.0, 700.0))  # E / R, in K
    rise = numpyro.sample("rise", dist.Normal(60.0, 6.0))  # K for each mol/L that reacts
    cooling = numpyro.sample("cooling", dist.LogNormal(jnp.log(0.15), 0.25))  # per minute
    parameters = (rate, activation, rise, cooling, inputs["jacket"])
    peak = hottest_reading(inputs["feed"], inputs["start"], parameters)
    numpyro.sample("temperature", dist.Normal(peak, 2.0))
