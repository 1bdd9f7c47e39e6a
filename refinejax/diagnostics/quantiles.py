"""Quantiles and tails of distributions, in float64 whatever JAX computes in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, gammaincc, ndtri


def t_quantile(probability: float, freedom: np.ndarray) -> np.ndarray:
    """Return the quantile of Student's t above the median, like ``freedom``; NaN for none, or < 1.

    P(T > t) = ½ I_x(ν/2, ½), x = ν/(ν + t²) (Abramowitz and Stegun 1964, 26.7.1), solved for t by
    bisection in ln t. Infinite degrees of freedom are the normal distribution.
    """
    freedom = np.asarray(freedom, float)
    each, place = np.unique(freedom, return_inverse=True)
    usable = np.isfinite(each) & (each >= 1)
    nu = np.where(usable, each, 1.0)
    with jax.enable_x64(True):
        normal = float(ndtri(jnp.asarray(probability, jnp.float64)))
        low, high = np.full(each.shape, np.log(normal)), np.full(each.shape, 300.0)
        for _ in range(64):
            middle = (low + high) / 2
            tail = 0.5 * np.asarray(betainc(nu / 2, 0.5, 1 / (1 + np.exp(2 * middle) / nu)))
            above = tail > 1 - probability
            low, high = np.where(above, middle, low), np.where(above, high, middle)
    found = np.where(usable, np.exp((low + high) / 2), np.where(each > 0, normal, np.nan))
    return np.where(each >= 1, found, np.nan)[place].reshape(freedom.shape)


def chi_square_tail(value: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return P(χ² > value) = Q(ν/2, value/2); NaN where ν ≤ 0 (A. and S. 1964, 26.4.19)."""
    value, freedom = np.asarray(value, float), np.asarray(freedom, float)
    usable = (freedom > 0) & np.isfinite(value)
    with jax.enable_x64(True):
        half = jnp.asarray(np.where(usable, freedom, 1.0) / 2)
        tail = np.asarray(gammaincc(half, jnp.asarray(np.where(usable, value, 0.0) / 2)))
    return np.where(usable, tail, np.nan)
