"""Losses for training predictors. For one sample; the mean over a batch is the caller's.

Each is a mean over params, so that losses of predictors of few and of many params compare.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from refinejax._core import Scalar


def standardized_mse(
    prediction: Float[Array, " n"], target: Float[Array, " n"], scale: Any = 1.0
) -> Scalar:
    """Return the mean squared error in units of a scale: mean(((p̂ − p)/scale)²).

    Args:
        prediction: p̂.
        target: p.
        scale: of each param, such as its range, so that all weigh the same.
    """
    return jnp.mean(((prediction - target) / scale) ** 2)


def learned_uncertainty(error: Float[Array, " n"], log_variance: Float[Array, " n"]) -> Scalar:
    """Return mean(½·exp(−s)·e² + ½·s), s = log σ² being learned, one for each param.

    The tasks weigh themselves: at the optimum s is the log of the mean of e² over the samples
    (Kendall, Gal and Cipolla 2018, Multi-Task Learning Using Uncertainty to Weigh Losses, eq. 7,
    with s in place of σ).

    Args:
        error: e, standardized.
        log_variance: s, the same for all samples.
    """
    return 0.5 * jnp.mean(jnp.exp(-log_variance) * error**2 + log_variance)


def gaussian_nll(
    mean: Float[Array, " n"],
    log_variance: Float[Array, " n"],
    target: Float[Array, " n"],
    beta: Any = 0.0,
) -> Scalar:
    """Return the negative log-likelihood of normal distributions, one for each param.

        mean(½·(p − μ)²/σ² + ½·log 2πσ²)

    (Nix and Weigend 1994; Lakshminarayanan et al. 2017, eq. 1). With β > 0 each term is weighed by
    σ^2β, held constant: at β = 1 the gradient in μ equals the gradient of the squared error, and
    samples that are uncertain at first are learned too (Seitzer et al. 2022, On the Pitfalls of
    Heteroscedastic Uncertainty Estimation, eq. 4; they advise ½).

    Args:
        mean: μ, standardized.
        log_variance: log σ², of this sample.
        target: p, standardized.
        beta: β, from 0 to 1.
    """
    weight = jax.lax.stop_gradient(jnp.exp(beta * log_variance))
    terms = (target - mean) ** 2 * jnp.exp(-log_variance) + log_variance + math.log(2 * math.pi)
    return 0.5 * jnp.mean(weight * terms)


def curriculum(step: Any, start: Any, end: Any) -> Scalar:
    """Return λ of a curriculum: 0 up to a step, 1 from another on, linear between.

    Args:
        step: where training is.
        start: the last step with λ = 0.
        end: the first step with λ = 1; if it is not after ``start``, λ jumps to 1 after it.
    """
    step, start, end = (jnp.asarray(x, float) for x in (step, start, end))
    return jnp.clip((step - start) / jnp.maximum(end - start, 1), 0, 1)


def at_scale(prediction: Float[Array, " n"], target: Float[Array, " n"], index: int) -> Array:
    """Return the multiple of the prediction that agrees with the target in one param.

    Where an observation determines params only up to a common factor, what it does determine is the
    same for all multiples; a loss of this multiple is therefore one of that alone.

    Args:
        prediction: p̂; p̂[index] is not 0.
        target: p.
        index: the param that fixes the scale.
    """
    return prediction * (target[index] / prediction[index])
