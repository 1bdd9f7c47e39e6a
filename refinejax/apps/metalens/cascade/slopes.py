"""Lenses that fit the slopes of phase maps, without a start: the first stage of the cascade."""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax._chunks import by_chunks
from refinejax._compiler import REORDER
from refinejax._core import Refiner, State, as_problem
from refinejax.physics.metalens.slopes import lens_from_slopes
from refinejax.physics.slopes import Blocks, block_phasors, expand, slopes
from refinejax.problems import InverseProblem, ParameterSpace
from refinejax.problems.phase import slope_problem
from refinejax.refiners import LevenbergMarquardt

_CANDIDATES = 3  # aliases of the slopes that are tried, the most plausible
_MOST_ALIASES = 4  # turns a pixel
_STEEP = 1.03  # κ/|g| of one more lens: most windows are far from the axis
_PREFERENCE = 0.8  # factor on the loss of the fit that began at the user's start: it wins ties


class SlopeFit(Protocol):
    """Finds lenses that fit the slopes of maps: `fit_slopes`, or a learned one."""

    def __call__(
        self,
        problem: InverseProblem,
        space: ParameterSpace,
        start: np.ndarray,
        *,
        given: bool,
        steps: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lenses (B, k, 4) [µm], the best first, and losses (B, k)."""
        ...


def fit_slopes(
    problem: InverseProblem, space: ParameterSpace, start: np.ndarray, *, given: bool, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return lenses whose slopes are those of the maps, the best first, and their losses.

    Args:
        problem: of B maps (see `turn_problem`), with the wavelengths as context.
        space: bounds of (xc, yc, S, focal_length) [µm].
        start: shape (B, 4) [µm].
        given: whether to begin there too.
        steps: of each fit.

    Returns:
        Lenses of shape (B, k, 4) [µm] and losses of shape (B, k); infinite losses where the map has
        no slopes.
    """
    size, aliases = problem.observation.shape[-1], possible_aliases(problem, space)
    return by_chunks(
        lambda rows: _fit(
            problem.replace(observation=problem.observation[rows], context=problem.context[rows]),
            space,
            start[rows],
            blocks=Blocks.of(size),
            aliases=aliases,
            given=given,
            steps=np.int32(steps),
        ),
        len(start),
    )


@functools.partial(
    jax.jit, static_argnames=("blocks", "aliases", "given"), compiler_options=REORDER
)
def _fit(
    problem: InverseProblem,
    space: ParameterSpace,
    start: Float[Array, "b 4"],
    *,
    blocks: Blocks,
    aliases: int,
    given: bool,
    steps: Array,
) -> tuple[Float[Array, "b k 4"], Float[Array, "b k"]]:
    refiner = LevenbergMarquardt()

    def one(turns: Array, wavelength: Array, start: Array) -> tuple[Array, Array]:
        phasors = block_phasors(turns, blocks)
        lenses = closed_form(phasors, blocks, wavelength, space, aliases)
        lenses = jnp.concatenate([start[None], lenses]) if given else lenses
        known = slopes(phasors[0]), slopes(phasors[1])
        task = slope_problem(problem.forward, known, blocks, space=space, context=wavelength)
        inner = as_problem(task).coordinates()
        fits, losses = jax.vmap(lambda lens: some_steps(refiner, inner, lens, steps))(lenses)
        losses = losses.at[0].multiply(_PREFERENCE) if given else losses
        order = jnp.argsort(losses)
        found = fits[order]
        return jnp.where(jnp.isfinite(found), found, start), losses[order]

    return jax.vmap(one)(problem.observation, problem.context, start)


def some_steps(refiner: Refiner, inner: Any, lens: Array, steps: Any) -> tuple[Array, Array]:
    """Return the lens after so many steps, and its loss, infinite if it is not finite.

    Args:
        refiner: that draws nothing.
        inner: the problem in its `coordinates`.
        lens: where to begin, in those of the problem itself.
        steps: how many.
    """
    key = jax.random.key(0)

    def step(_: Array, state: State) -> State:
        return refiner.step(inner.objective, state, key)

    state = refiner.init(inner.objective, inner.encode(lens), key)
    state = jax.lax.fori_loop(0, steps, step, state)
    loss = jnp.where(jnp.isfinite(state.loss), state.loss, jnp.inf)
    return inner.decode(state.params), loss


def possible_aliases(problem: InverseProblem, space: ParameterSpace) -> int:
    """Return how many turns a pixel the slopes of lenses within bounds can be off by wrapping.

    Args:
        problem: of maps (see `exact_problem`).
        space: bounds.
    """
    size = problem.observation.shape[-1]
    steepest = float(space.upper[2]) / float(np.nanmin(problem.context, initial=1e3))
    return max(min(int(np.ceil(steepest / (size - 1) - 0.5)), _MOST_ALIASES), 0)


def closed_form(
    phasors: tuple[Array, Array],
    blocks: Blocks,
    wavelength: Array,
    space: ParameterSpace,
    aliases: int,
) -> Float[Array, "k 4"]:
    """Return lenses with slopes and curvatures of the map, for the most plausible aliases.

    Args:
        phasors: of differences of neighbors along both axes.
        blocks: their sizes.
        wavelength: of the map [µm].
        space: bounds of (xc, yc, S, focal_length) [µm].
        aliases: turns a pixel that slopes may be off.
    """
    shape = expand(phasors[0], phasors[1], blocks)
    pixels = blocks.size - 1  # in a window
    curvature = shape.curvature * pixels

    def lens(offset: Array) -> Any:
        return lens_from_slopes(
            (shape.slope + offset) * pixels, curvature, wavelength, space.upper[2]
        )

    turns = jnp.arange(-aliases, aliases + 1)
    offsets = jnp.stack(jnp.meshgrid(turns, turns), -1).reshape(-1, 2)
    guesses = jax.vmap(lens)(offsets)
    plain = len(offsets) // 2  # where noise hides the curvature, slopes as they are come first
    few = jnp.argsort(guesses.misfit.at[plain].set(-1))[:_CANDIDATES]
    slope = shape.slope * pixels
    steep = _STEEP * jnp.linalg.norm(slope) * wavelength
    far_out = lens_from_slopes(slope, curvature, wavelength, steep).lens
    return space.clip(jnp.concatenate([guesses.lens[few], far_out[None]]))
