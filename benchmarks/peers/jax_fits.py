"""Candidates in JAX: ours one by one, optimistix, jaxopt; jitted, by ``lax.map`` or in groups."""

import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.lens import LOWER, SIZE, WIDTH, Maps, image, turns_at
from refinejax import wrapped_difference
from refinejax.physics.metalens.lens import pixel_grid

STEPS = 100
TOLERANCES = (1e-3, 1e-2, 1e-4)
Residual = Callable[[Array, Array], Array]  # (params in units of the ranges, map) → (m,)


class Candidate(NamedTuple):
    """A peer with settings.

    Attributes:
        peer: its name.
        settings: for the record.
        solve: (maps, number) → lenses.
        numbers: what to try, the likeliest first.
        share: of the maps that it gets: slow ones fewer.
    """

    peer: str
    settings: dict[str, Any]
    solve: Callable[[Maps, float], np.ndarray]
    numbers: tuple[float, ...] = TOLERANCES
    share: float = 0.25


def grid() -> tuple[Array, Array]:
    u, v = pixel_grid(SIZE, "float32")
    return u[:1], v[:, :1]


def _to_unit(lens: Array) -> Array:
    return (lens - jnp.asarray(LOWER, lens.dtype)) / jnp.asarray(WIDTH, lens.dtype)


def _from_unit(unit: Array) -> Array:
    return jnp.asarray(LOWER, unit.dtype) + jnp.asarray(WIDTH, unit.dtype) * unit


def wrapped(unit: Array, turns: Array) -> Array:
    difference = turns_at(_from_unit(unit), *grid()) - turns
    return (2 * jnp.pi * (difference - jnp.round(difference))).ravel()


def channels(unit: Array, turns: Array) -> Array:
    """Return residuals that need no wrapping: of the cosine and of the sine."""
    phases = 2 * jnp.pi * turns_at(_from_unit(unit), *grid()), 2 * jnp.pi * turns
    first, second = (jnp.stack([jnp.cos(phase), jnp.sin(phase)]) for phase in phases)
    return (first - second).ravel()


def raw_image(lens: Array, radians: Array) -> Array:
    return wrapped_difference(image(lens), radians).ravel()


def image_residual(unit: Array, radians: Array) -> Array:
    return raw_image(_from_unit(unit), radians)


def optimistix(residual: Residual, name: str, *, all_settings: bool) -> Iterator[Candidate]:
    """Levenberg–Marquardt; with all settings also Gauss–Newton and BFGS."""
    if not find_spec("optimistix"):
        return
    import lineax  # pyright: ignore[reportMissingImports]
    import optimistix as optx  # pyright: ignore[reportMissingImports]  # in the extra `bench`

    qr, normal = lineax.QR(), lineax.Normal(lineax.Cholesky())
    lm, gn = optx.LevenbergMarquardt, optx.GaussNewton
    for group in (1, 16):
        yield _optimistix("LM", lm, residual, name, group, ("QR", qr))
    if not all_settings:
        return
    for label, solver in (("LM", lm), ("Gauss–Newton", gn)):
        for group in (1, 16):
            yield _optimistix(label, solver, residual, name, group, ("normal equations", normal))
    yield _optimistix("Gauss–Newton", gn, residual, name, 1, ("QR", qr))
    yield _optimistix("LM", lm, channels, "cos and sin", 1, ("QR", qr))

    def bfgs(data: Array, start: Array, tolerance: Any) -> Array:
        fit = optx.minimise(
            lambda unit, data: jnp.mean(residual(unit, data) ** 2),
            optx.BFGS(rtol=tolerance, atol=tolerance),
            _to_unit(start),
            args=data,
            max_steps=2 * STEPS,
            throw=False,
        )
        return _from_unit(fit.value)

    for group in (1, 64):
        yield jitted("optimistix BFGS", {"residual": name}, bfgs, group, (1e-5, 1e-4, 1e-6))


def _optimistix(
    label: str, solver: Any, residual: Residual, name: str, group: int, linear: tuple[str, Any]
) -> Candidate:
    import optimistix as optx  # pyright: ignore[reportMissingImports]

    def one(data: Array, start: Array, tolerance: Any) -> Array:
        method = solver(rtol=tolerance, atol=tolerance, linear_solver=linear[1])
        fit = optx.least_squares(
            residual, method, _to_unit(start), args=data, max_steps=STEPS, throw=False
        )
        return _from_unit(fit.value)

    settings = {"residual": name, "linear_solver": linear[0]}
    return jitted(f"optimistix {label}", settings, one, group)


def jaxopt(residual: Residual, name: str, *, all_settings: bool) -> Iterator[Candidate]:
    """Levenberg–Marquardt, with the matrix and, with all settings, by conjugate gradients."""
    if not find_spec("jaxopt"):
        return
    for group in (1, 16):
        yield _jaxopt(residual, name, group, "cholesky")
    if all_settings:
        yield _jaxopt(residual, name, 1, None)
        yield _jaxopt(channels, "cos and sin", 1, "cholesky")


def _jaxopt(residual: Residual, name: str, group: int, system: str | None) -> Candidate:
    with warnings.catch_warnings():  # it warns that it is deprecated
        warnings.simplefilter("ignore")
        import jaxopt  # pyright: ignore[reportMissingImports]  # in the extra `bench`

    options = {} if system is None else {"solver": system, "materialize_jac": True}

    def one(data: Array, start: Array, tolerance: Any) -> Array:
        # Its tolerance is on the gradient of half a sum: as a mean it has the scale of a pixel's.
        method = jaxopt.LevenbergMarquardt(
            lambda unit, data: residual(unit, data) / SIZE,
            maxiter=STEPS,
            tol=tolerance,
            implicit_diff=False,
            **options,
        )
        return _from_unit(method.run(_to_unit(start), data).params)

    settings = {"residual": name, "linear_solver": system or "conjugate gradients"}
    return jitted("jaxopt LM", settings, one, group)


def jitted(
    peer: str,
    settings: dict[str, Any],
    one: Callable[[Array, Array, Any], Array],
    group: int,
    numbers: tuple[float, ...] = TOLERANCES,
) -> Candidate:
    """Make a candidate of (map, start, tolerance) → lens; groups of more than one are vmapped."""

    @jax.jit
    def every(data: Array, starts: Array, tolerance: Array) -> Array:
        return jax.lax.map(
            lambda sample: one(sample[0], sample[1], tolerance),
            (data, starts),
            batch_size=None if group == 1 else group,
        )

    def solve(maps: Maps, tolerance: float) -> np.ndarray:
        data = maps.radians if settings["residual"] == "image" else maps.turns
        return np.asarray(every(data, maps.starts, jnp.asarray(tolerance, data.dtype)))

    return Candidate(peer, {**settings, "group": group}, solve, numbers)
