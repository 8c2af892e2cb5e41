"""A NumPyro program's posterior, approximated by particles: NUTS, variational inference or sequential Monte Carlo.

Latent values are handled as one vector z in R^D, with NumPyro's bijections to their supports. What a method
says about itself is checked, and a run that is not to be trusted comes with the reason in words.

Sources: Hoffman and Gelman 2014 (NUTS); Vehtari et al. 2021 (split R-hat, effective sample size); Del Moral, Doucet
and Jasra 2006 (tempered sequential Monte Carlo).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import numpyro
import optax
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.infer.initialization import init_to_median
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

if TYPE_CHECKING:
    from guardrail.hypotheses.program_model import Latents, ProgramModel
    from guardrail.policy.program_schema import PosteriorUse

CHAINS = 2
LARGEST_R_HAT = 1.05
LEAST_EFFECTIVE = 0.05
"""Least effective sample size, as a share of the particles."""
_MAX_TEMPERATURES = 100
_SMC_MOVES = 5
_LEAPFROGS = 8


class Data(NamedTuple):
    """Observations, padded: float64[N, F], float64[N], and which of them are real."""

    rows: jax.Array
    outcomes: jax.Array
    real: jax.Array


class Particles(NamedTuple):
    """Weighted particles.

    Attributes:
        z: float64[K, D], latent values in the unconstrained space.
        log_weight: float64[K], up to a constant.
        problem: why they are not to be trusted; empty if they are.
    """

    z: jax.Array
    log_weight: jax.Array
    problem: str


class ProgramPosterior:
    """A program's densities on R^D, and ways to draw from its posterior.

    Args:
        model: the program, inspected; without discrete latent sites.
        use: how to approximate.
        seed: of everything random.
        example: float64[F], an input.

    :raises ProgramError: if a latent site is discrete.
    """

    def __init__(self, model: ProgramModel, use: PosteriorUse, seed: jax.Array, example: jax.Array) -> None:
        self.model, self._use, self._seed, self._example = model, use, seed, example
        for name, site in model.sites.items():
            if not jnp.issubdtype(site.dtype, jnp.floating):
                raise model.error(f"has a discrete latent site {name!r}, which has no gradient; use sampled")
        first = self._unconstrain(self._draw(seed))
        flat, self._unravel = ravel_pytree(first)
        self.dimension = int(flat.shape[0])
        self._nuts = MCMC(
            NUTS(self._joint, init_strategy=init_to_median),
            num_warmup=use.warmup,
            num_samples=-(-use.particles // CHAINS),
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
            jit_model_args=True,  # the same object serves other observations
        )
        self._guide = AutoMultivariateNormal(self._joint)
        self._svi = SVI(self._joint, self._guide, numpyro.optim.optax_to_numpyro(optax.adam(0.02)), Trace_ELBO(8))
        self._priors = jax.jit(jax.vmap(lambda key: ravel_pytree(self._unconstrain(self._draw(key)))[0]))
        self._log_joint = jax.jit(jax.vmap(self.log_joint, in_axes=(0, None)))
        self._tempering: Callable[..., Any] | None = None

    # ------------------------------------------------------------ densities

    def constrain(self, z: jax.Array) -> Latents:
        """The latent values of float64[D]."""
        values = constrain_fn(self._prior_model, (), {}, self._unravel(z))
        return {site: values[site] for site in self.model.sites}

    def log_prior(self, z: jax.Array) -> jax.Array:
        """float64[]: log density of the prior at float64[D], in the unconstrained space."""
        energy: jax.Array = potential_energy(self._prior_model, (), {}, self._unravel(z))
        return -energy

    def log_likelihood(self, z: jax.Array, data: Data) -> jax.Array:
        """float64[]: sum of the log densities of the real observations."""
        latents = self.constrain(z)

        def one(row: jax.Array, outcome: jax.Array) -> jax.Array:
            return self.model.log_probability(latents, row, outcome)

        return jnp.sum(jnp.where(data.real, jax.vmap(one)(data.rows, data.outcomes), 0.0))

    def log_joint(self, z: jax.Array, data: Data) -> jax.Array:
        """float64[]: log prior plus log likelihood."""
        return self.log_prior(z) + self.log_likelihood(z, data)

    # ------------------------------------------------------------ drawing

    def prior(self) -> Particles:
        """Exact draws from the prior."""
        z = self._priors(jax.random.split(jax.random.fold_in(self._seed, 0), self._use.particles))
        return Particles(
            z, jnp.zeros(len(z)), "" if bool(jnp.isfinite(z).all()) else "a draw of the prior is no number"
        )

    def posterior(self, data: Data, count: int) -> Particles:
        """Draws given the observations; the same for the same observations.

        Args:
            data: the observations.
            count: how many they are; part of the seed.
        """
        key = jax.random.fold_in(self._seed, count)
        run = {"nuts": self._by_nuts, "svi": self._by_svi, "smc": self._by_smc}[self._use.method]
        particles = run(key, data)
        if not particles.problem and not bool(jnp.isfinite(particles.z).all()):
            return particles._replace(problem=f"{self._use.method} gave what is no number")
        return particles

    def _by_nuts(self, key: jax.Array, data: Data) -> Particles:
        self._nuts.run(key, *data, extra_fields=("diverging",))
        samples = self._nuts.get_samples(group_by_chain=True)
        sites = {site: samples[site] for site in self.model.sites}
        z = jax.vmap(jax.vmap(lambda latents: ravel_pytree(self._unconstrain(latents))[0]))(sites)
        chains = np.asarray(z)
        r_hat = float(np.max(split_gelman_rubin(chains)))
        effective = float(np.min(effective_sample_size(chains)))
        diverging = float(np.mean(np.asarray(self._nuts.get_extra_fields()["diverging"])))
        z = z.reshape(-1, self.dimension)[: self._use.particles]
        problem = ""
        if not (r_hat <= LARGEST_R_HAT and effective >= LEAST_EFFECTIVE * len(z) and diverging <= 0.05):
            problem = (
                f"nuts has not converged: largest split R-hat {r_hat:.3g} (at most {LARGEST_R_HAT}), least effective "
                f"sample size {effective:.0f} of {len(z)}, {diverging:.1%} divergent; raise warmup or mend the model"
            )
        return Particles(z, jnp.zeros(len(z)), problem)

    def _by_svi(self, key: jax.Array, data: Data) -> Particles:
        result = self._svi.run(key, self._use.warmup, *data, progress_bar=False)
        losses = np.asarray(result.losses)
        tenth = max(1, len(losses) // 10)
        before, last = losses[-2 * tenth : -tenth], losses[-tenth:]
        posterior = self._guide.get_posterior(result.params)
        guided = posterior.sample(jax.random.fold_in(key, 1), (self._use.particles,))
        z = jax.vmap(self._guide_order)(guided)
        log_weight = self._log_joint(z, data) - posterior.log_prob(guided)
        improving = float(before.mean() - last.mean())
        problem = ""
        if not np.isfinite(losses).all():
            problem = "the ELBO is no number"
        elif not improving <= 0.5 + float(before.std() + last.std()):
            problem = f"the ELBO still improves ({improving:.3g} nats in the last tenth); raise warmup"
        elif not (effective := effective_size(log_weight)) >= LEAST_EFFECTIVE * len(z):
            problem = f"the Gaussian guide misses the posterior: effective sample size {effective:.0f} of {len(z)}"
        return Particles(z, log_weight, problem)

    def _by_smc(self, key: jax.Array, data: Data) -> Particles:
        step = self._tempering or self._make_tempering()
        self._tempering = step
        from blackjax.smc import tempered

        z = self._priors(jax.random.split(key, self._use.particles))
        state = tempered.init(z)
        accepted = 1.0
        for number in range(_MAX_TEMPERATURES):
            state, accepted = step(jax.random.fold_in(key, number), state, data)
            if not float(state.tempering_param) < 1.0:
                break
        problem = ""
        if float(state.tempering_param) < 1.0:
            problem = f"tempering did not come to its end in {_MAX_TEMPERATURES} steps; mend the model"
        elif not float(accepted) >= 0.2:
            problem = f"particles hardly move any more: {float(accepted):.0%} of the moves were accepted"
        elif not (effective := effective_size(jnp.log(state.weights))) >= LEAST_EFFECTIVE * len(z):
            problem = f"the weights have collapsed: effective sample size {effective:.0f} of {len(z)}"
        return Particles(state.particles, jnp.log(state.weights), problem)

    def _make_tempering(self) -> Callable[..., Any]:
        import blackjax
        from blackjax.smc import adaptive_tempered, extend_params, resampling

        def step(key: jax.Array, state: Any, data: Data) -> tuple[Any, jax.Array]:
            kernel = adaptive_tempered.build_kernel(
                self.log_prior,
                lambda z: jnp.nan_to_num(self.log_likelihood(z, data), nan=-1e300, neginf=-1e300),
                blackjax.hmc.build_kernel(),
                blackjax.hmc.init,
                resampling.systematic,
                0.5,
            )
            # Steps follow the spread of the particles, which shrinks as data come in.
            spread = jnp.cov(state.particles, rowvar=False).reshape(self.dimension, self.dimension)
            parameters = extend_params(
                {
                    "step_size": jnp.asarray(0.4),
                    "inverse_mass_matrix": jnp.diag(spread) + 1e-12,
                    "num_integration_steps": jnp.asarray(_LEAPFROGS),
                }
            )
            after, info = kernel(key, state, _SMC_MOVES, parameters)
            return after, jnp.mean(info.update_info.acceptance_rate)

        return jax.jit(step)

    # ------------------------------------------------------------ the program as one model of all data

    def _draw(self, key: jax.Array) -> Latents:
        return self.model.prior_draw(key, self._example)[0]

    def _prior_model(self) -> Latents:
        return self.model.latent_sites(self._example)

    def _joint(self, rows: jax.Array, outcomes: jax.Array, real: jax.Array) -> None:
        latents = self._prior_model()
        with handlers.block():
            each = jax.vmap(lambda row, outcome: self.model.log_probability(latents, row, outcome))(rows, outcomes)
        numpyro.factor("observations", jnp.sum(jnp.where(real, each, 0.0)))

    def _unconstrain(self, latents: Latents) -> dict[str, jax.Array]:
        found: dict[str, jax.Array] = unconstrain_fn(self._prior_model, (), {}, dict(latents))
        return {site: found[site] for site in self.model.sites}

    def _guide_order(self, z: jax.Array) -> jax.Array:
        """The guide's vector in this class's order."""
        return ravel_pytree(dict(self._guide._unpack_latent(z)))[0]


def effective_size(log_weight: npt.ArrayLike) -> float:
    """Kish's effective sample size of log weights; 0 if they are no numbers."""
    logs = np.asarray(log_weight, np.float64)
    if not np.isfinite(logs.max()):
        return 0.0
    weight = np.exp(logs - logs.max())
    return float(weight.sum() ** 2 / (weight**2).sum())
