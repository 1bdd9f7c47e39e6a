"""The residual functions of Moré and Wild's problems.

Most are from Moré, Garbow and Hillstrom 1981, ACM TOMS 7, 17 (MGH, with the number there).
"""

import jax.numpy as jnp
import numpy as np
from jax import Array


def linear_full_rank(x: Array, m: int) -> Array:
    """MGH 32."""
    return jnp.pad(x, (0, m - len(x))) - 2 * jnp.sum(x) / m - 1


def linear_rank_one(x: Array, m: int) -> Array:
    """MGH 33."""
    return jnp.arange(1, m + 1) * (jnp.arange(1, len(x) + 1) @ x) - 1


def linear_rank_one_zeros(x: Array, m: int) -> Array:
    """MGH 34: rank one, with columns and rows of zeros."""
    factors = np.arange(m)
    factors[-1] = 0
    return (jnp.arange(2, len(x)) @ x[1:-1]) * factors - 1


def rosenbrock(x: Array) -> Array:
    """MGH 1."""
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def helical_valley(x: Array) -> Array:
    """MGH 7. Its angle, in turns, runs from −¼ to ¾."""
    angle = jnp.arctan2(-x[0], x[1]) / (2 * jnp.pi) + 0.25
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]])


def powell_singular(x: Array) -> Array:
    """MGH 13."""
    a, b, c, d = x
    return jnp.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def freudenstein_roth(x: Array) -> Array:
    """MGH 2."""
    a, b = x
    return jnp.stack([a - 13 + ((5 - b) * b - 2) * b, a - 29 + ((b + 1) * b - 14) * b])


def bard(x: Array) -> Array:
    """MGH 8."""
    u = np.arange(1, 16)
    v = 16 - u
    return -x[0] - u / (x[1] * v + x[2] * np.minimum(u, v)) + BARD


def kowalik_osborne(x: Array) -> Array:
    """MGH 15."""
    u, y = KOWALIK
    return -x[0] * u * (u + x[1]) / (u * (u + x[2]) + x[3]) + y


def meyer(x: Array) -> Array:
    """MGH 10."""
    return x[0] * jnp.exp(x[1] / (45 + 5 * np.arange(1, 17) + x[2])) - MEYER


def watson(x: Array) -> Array:
    """MGH 20."""
    t = np.arange(1, 30)[:, None] / 29
    powers = t ** np.arange(len(x))
    slope = powers[:, :-1] * np.arange(1, len(x)) @ x[1:]
    ends = jnp.stack([x[0], x[1] - x[0] ** 2 - 1])
    return jnp.concatenate([slope - (powers @ x) ** 2 - 1, ends])


def box(x: Array) -> Array:
    """MGH 12, in three dimensions."""
    t = np.arange(1, 11) / 10
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def jennrich_sampson(x: Array) -> Array:
    """MGH 6."""
    i = np.arange(1, 11)
    return -jnp.exp(i * x[0]) - jnp.exp(i * x[1]) + 2 + 2 * i


def brown_dennis(x: Array) -> Array:
    """MGH 16."""
    t = np.arange(1, 21) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def chebyquad(x: Array) -> Array:
    """MGH 35: means of the Chebyshev polynomials on [0, 1], less their integrals."""
    before, now = jnp.ones_like(x), 2 * x - 1
    rows = []
    for i in range(1, len(x) + 1):
        rows.append(jnp.mean(now) + (0 if i % 2 else 1 / (i**2 - 1)))
        before, now = now, 2 * (2 * x - 1) * now - before
    return jnp.stack(rows)


def brown_almost_linear(x: Array) -> Array:
    """MGH 27."""
    return (x + jnp.sum(x) - (len(x) + 1)).at[-1].set(jnp.prod(x) - 1)


def osborne_one(x: Array) -> Array:
    """MGH 17."""
    t = 10 * np.arange(33)
    return -x[0] - x[1] * jnp.exp(-t * x[3]) - x[2] * jnp.exp(-t * x[4]) + OSBORNE_ONE


def osborne_two(x: Array) -> Array:
    """MGH 19."""
    t = np.arange(65)[:, None] / 10
    bells = x[1:4] * jnp.exp(-((t - x[8:]) ** 2) * x[5:8])
    return -x[0] * jnp.exp(-t[:, 0] * x[4]) - jnp.sum(bells, axis=1) + OSBORNE_TWO


def bdqrtic(x: Array) -> Array:
    """Conn, Gould and Toint 1994, Math. Comp. 63, 165 (CUTE)."""
    n = len(x) - 4
    squares = sum((k + 1) * x[k : k + n] ** 2 for k in range(4)) + 5 * x[-1] ** 2
    return jnp.concatenate([3 - 4 * x[:n], squares])


def cube(x: Array) -> Array:
    """The chain of CUTE's CUBE: x₁ − 1, 10 (xᵢ − xᵢ₋₁³)."""
    return jnp.concatenate([x[:1] - 1, 10 * (x[1:] - x[:-1] ** 3)])


def mancino(x: Array) -> Array:
    """Spedicato 1975: dense and smooth."""
    i = np.arange(1, len(x) + 1)
    v = jnp.sqrt(x[:, None] ** 2 + i[:, None] / i)
    angle = jnp.log(v)
    return 1400 * x + (i - 50.0) ** 3 + jnp.sum(v * _fifths(angle), axis=1)


def _fifths(angle: Array) -> Array:
    return jnp.sin(angle) ** 5 + jnp.cos(angle) ** 5


def heart_eight(x: Array) -> Array:
    """Heart dipole, CUTE's HEART8: two complex charges and their first moments."""
    a, b, c, d, t, u, v, w = x
    sums = [a + b, c + d]
    for power in range(1, 4):
        # (a + ic)(t + iv)ᵏ + (b + id)(u + iw)ᵏ; the paper has the real part first where k is odd.
        p, q = _power(t, v, power), _power(u, w, power)
        real = a * p[0] - c * p[1] + b * q[0] - d * q[1]
        imaginary = c * p[0] + a * p[1] + d * q[0] + b * q[1]
        sums += [real, imaginary]
    return jnp.stack(sums) - HEART


def _power(real: Array, imaginary: Array, exponent: int) -> tuple[Array, Array]:
    a, b = real, imaginary
    for _ in range(exponent - 1):
        a, b = a * real - b * imaginary, a * imaginary + b * real
    return a, b


def _data(text: str) -> np.ndarray:
    return np.array(text.split(), float)


BARD = _data("14 18 22 25 29 32 35 39 37 58 73 96 134 210 439") / 100
KOWALIK = (
    _data("4 2 1 0.5 0.25 0.167 0.125 0.1 0.0833 0.0714 0.0625"),
    _data("1957 1947 1735 1600 844 627 456 342 323 235 246") / 10_000,
)
MEYER = _data(
    "34780 28610 23650 19630 16370 13720 11540 9744 8261 7030 6005 5147 4427 3820 3307 2872"
)
OSBORNE_ONE = _data(
    "844 908 932 936 925 908 881 850 818 784 751 718 685 658 628 603 580 558 538 522 506 490 478 "
    "467 457 448 438 431 424 420 414 411 406"
)
OSBORNE_ONE /= 1000
OSBORNE_TWO = _data(
    "1366 1191 1112 1013 991 885 831 847 786 725 746 679 608 655 616 606 602 626 651 724 649 649 "
    "694 644 624 661 612 558 533 495 500 423 395 375 372 391 396 405 428 429 523 562 607 653 672 "
    "708 633 668 645 632 591 559 597 625 739 710 729 720 636 581 428 292 162 98 54"
)
OSBORNE_TWO /= 1000
HEART = np.array([-0.69, -0.044, -1.57, -1.31, -2.65, 2.0, -12.6, 9.48])
