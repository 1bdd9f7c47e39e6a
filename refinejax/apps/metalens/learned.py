"""Lenses that fit the slopes of phase maps, by a learned refiner: the first stage of "learned"."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from refinejax._chunks import by_chunks
from refinejax._compiler import REORDER
from refinejax._core import Refiner, as_problem
from refinejax._trees import structure_hash
from refinejax.apps.metalens.cascade.scale import OTHERS, REFERENCE
from refinejax.apps.metalens.cascade.slopes import closed_form, possible_aliases, some_steps
from refinejax.apps.metalens.prediction import sample_lenses
from refinejax.apps.metalens.tasks import measured_slopes, reference_problem
from refinejax.networks.predictor import Predictor
from refinejax.physics.slopes import Blocks, block_phasors
from refinejax.problems import InverseProblem, ParameterSpace
from refinejax.problems.phase import RADIAN

STEPS = 3
DRAWS = 3


class LearnedSlopes(struct.PyTreeNode):
    """Some steps of a learned refiner from each of several starts, in place of `fit_slopes`.

    Beside the start that is given: lenses with slopes and curvatures of the map in closed form, as
    there, and lenses drawn from what the predictor, if there is one, says of the map, as far apart
    as it is uncertain.

    Attributes:
        refiner: trained on `LensTasks`.
        predictor: of lenses; or None.
        steps: of the refiner; static.
        draws: from the predictor; static.
    """

    refiner: Refiner
    predictor: Predictor | None = None
    steps: int = struct.field(pytree_node=False, default=STEPS)
    draws: int = struct.field(pytree_node=False, default=DRAWS)

    def __call__(
        self,
        problem: InverseProblem,
        space: ParameterSpace,
        start: np.ndarray,
        *,
        given: bool,
        steps: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lenses (B, k, 4) [µm], the best first, and their losses (B, k)."""
        del given, steps  # it needs a start, and few steps
        classes, aliases = (
            structure_hash(self.refiner, self.predictor),
            possible_aliases(problem, space),
        )
        return by_chunks(
            lambda rows: _fit(
                self,
                problem.observation[rows],
                problem.context[rows],
                space,
                start[rows],
                aliases=aliases,
                classes=classes,
            ),
            len(start),
        )

    def fit(
        self,
        turns: Float[Array, "n n"],
        wavelength: Array,
        space: ParameterSpace,
        start: Array,
        aliases: int,
    ) -> tuple[Float[Array, "k 4"], Float[Array, " k"]]:
        """Fit one map.

        Args:
            turns: a map [turns], shape (N, N); NaN is missing.
            wavelength: λ [µm].
            space: of the lens without the wavelength [µm].
            start: (xc, yc, S, focal_length) [µm].
            aliases: slopes that alias, up to which others are tried; static.

        Returns:
            Lenses [µm], the best first, shape (k, 4), and their losses, shape (k,).
        """
        blocks = Blocks.of(turns.shape[-1])
        lenses = closed_form(block_phasors(turns, blocks), blocks, wavelength, space, aliases)
        starts = jnp.concatenate([start[None], lenses])
        if self.predictor is not None and self.draws:
            phase = turns / jnp.asarray(RADIAN, turns.dtype)
            key = jax.random.key(0)
            lenses = sample_lenses(self.predictor, key, phase, self.draws, wavelength)
            starts = jnp.concatenate([starts, lenses[:, jnp.array(OTHERS)]])
        scale = (REFERENCE / wavelength).astype(turns.dtype)
        inner = as_problem(
            reference_problem(*measured_slopes(turns), turns.shape[-1])
        ).coordinates()
        lenses, losses = jax.vmap(
            lambda lens: some_steps(self.refiner, inner, lens * scale, self.steps)
        )(starts)
        order = jnp.argsort(losses)
        found = space.clip(lenses[order] / scale)
        return jnp.where(jnp.isfinite(found), found, start), losses[order]


@functools.partial(jax.jit, static_argnames=("aliases", "classes"), compiler_options=REORDER)
def _fit(
    learned: LearnedSlopes,
    turns: Float[Array, "b n n"],
    wavelength: Float[Array, " b"],
    space: ParameterSpace,
    start: Float[Array, "b 4"],
    *,
    aliases: int,
    classes: int,
) -> tuple[Float[Array, "b k 4"], Float[Array, "b k"]]:
    del classes  # see `structure_hash`
    return jax.vmap(lambda t, w, s: learned.fit(t, w, space, s, aliases))(turns, wavelength, start)
