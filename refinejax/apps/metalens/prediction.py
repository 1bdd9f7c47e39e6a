"""Lenses from a predictor: what its params mean, whether the wavelength is known or not.

A map determines a lens up to a factor common to all five params (see `physics.metalens`). Three
kinds of predictor deal with it:

- "known" predicts xc, yc, S and f in µm, and is told the wavelength; where that is not known, a
  reference wavelength.
- "ratios" predicts them divided by the wavelength, which is what a map determines. It serves for
  any wavelength alike, and does not know what the wavelength says of the ranges.
- "predicted" predicts them and the wavelength, in µm; where it is known they are all scaled by it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._chunks import by_chunks
from refinejax._trees import Bounds, structure_hash
from refinejax.apps.metalens.cascade.scale import OTHERS, REFERENCE, WAVELENGTH, reference_space
from refinejax.networks.predictor import Prediction, Predictor
from refinejax.physics.metalens.lens import LOWER, NAMES, UNITS, UPPER
from refinejax.problems import ParameterSpace

KINDS = ("known", "ratios", "predicted")
_NAMES = {
    "ratios": tuple(f"{NAMES[i]}/wavelength" for i in OTHERS),
    "known": tuple(NAMES[i] for i in OTHERS),
    "predicted": NAMES,
}


def lens_space(kind: str) -> ParameterSpace:
    """Return names, bounds and units of what a kind of predictor predicts.

    Args:
        kind: "known", "predicted" or "ratios".

    Raises:
        ValueError: for an unknown kind.
    """
    match kind:
        case "ratios":
            box = reference_space()
            bounds = [bound / REFERENCE for bound in box.bounds]
            return ParameterSpace.create(_NAMES[kind], *bounds)
        case "known":
            chosen = OTHERS
        case "predicted":
            chosen = list(range(len(NAMES)))
        case _:
            raise ValueError(f"wavelength: expected one of {', '.join(KINDS)}, got {kind!r}")
    lower, upper = ([bound[i] for i in chosen] for bound in (LOWER, UPPER))
    return ParameterSpace.create(_NAMES[kind], lower, upper, [UNITS[i] for i in chosen])


def kind_of(predictor: Predictor) -> str:
    """Return the kind of a predictor, by the names of its params.

    Args:
        predictor: a predictor of any params.

    Raises:
        ValueError: if it does not predict lenses.
    """
    for kind, names in _NAMES.items():
        if predictor.box.names == names:
            return kind
    raise ValueError(
        f"predictor: expected one of lenses ({', '.join(NAMES)}), got one of "
        f"{', '.join(predictor.box.names)}"
    )


def targets(kind: str, lens: Float[Array, "5"]) -> Float[Array, " n"]:
    """Return the params that a predictor of a kind is trained to predict for a lens.

    Args:
        kind: "known", "predicted" or "ratios".
        lens: (xc, yc, S, wavelength, focal_length) [µm].
    """
    if kind == "predicted":
        return lens
    others = lens[jnp.array(OTHERS)]
    return others / lens[WAVELENGTH] if kind == "ratios" else others


def context(kind: str, wavelength: Array | None) -> Array | None:
    """Return the context of a predictor: for "known" the wavelength, from −1 to 1, else None.

    Args:
        kind: "known", "predicted" or "ratios".
        wavelength: λ [µm]; None for the reference wavelength.
    """
    if kind != "known":
        return None
    length = jnp.asarray(REFERENCE) if wavelength is None else wavelength
    low, high = LOWER[WAVELENGTH], UPPER[WAVELENGTH]
    return jnp.reshape((2 * length - low - high) / (high - low), (1,))


def to_lens(kind: str, params: Float[Array, " n"], wavelength: Array | None) -> Float[Array, "5"]:
    """Return the lens [µm] for the params of a predictor; without bounds.

    Args:
        kind: "known", "predicted" or "ratios".
        params: of the predictor.
        wavelength: λ [µm], to which the lens is scaled; None if unknown.
    """
    if kind == "predicted":
        if wavelength is None:
            return params
        scaled = params * (wavelength / params[WAVELENGTH])
        return scaled.at[WAVELENGTH].set(wavelength)
    length = jnp.asarray(REFERENCE if wavelength is None else wavelength, params.dtype)
    return jnp.insert(params * length if kind == "ratios" else params, WAVELENGTH, length)


def predict_lens(
    predictor: Predictor, phase: Float[Array, "n n"], wavelength: Any = None
) -> Prediction:
    """Return the lens that a predictor sees in a map, and its standard deviations [µm].

    Args:
        predictor: of any kind.
        phase: one map [rad]; NaN is missing.
        wavelength: λ [µm]; None if unknown: then the lens is at the wavelength predicted, or at a
            reference wavelength, and all multiples of it explain the map as well. The standard
            deviation of λ is 0 but where it is predicted.

    Raises:
        ValueError: if the predictor is none of lenses.
    """
    kind = kind_of(predictor)
    length = None if wavelength is None else jnp.asarray(wavelength, phase.dtype)
    params, std = predictor.predict(phase, context(kind, length))
    lens = to_lens(kind, params, length)
    if kind == "predicted":
        factor = 1 if length is None else length / params[WAVELENGTH]
        std = std * factor
        std = std if length is None else std.at[WAVELENGTH].set(0)
    else:
        std = jnp.insert(std * (lens[WAVELENGTH] if kind == "ratios" else 1), WAVELENGTH, 0)
    return Prediction(_within(lens), std)


def predict_maps(
    predictor: Predictor, maps: np.ndarray, wavelength: np.ndarray | None
) -> Prediction:
    """Return the lenses seen in B maps, and standard deviations, both of shape (B, 5) [µm].

    Args:
        predictor: of any kind.
        maps: shape (B, N, N) [rad].
        wavelength: shape (B,) [µm]; None if unknown.

    Raises:
        ValueError: if the predictor is none of lenses, or for maps of another size.
    """
    kind_of(predictor)
    size, known = maps.shape[-1], wavelength is not None
    lengths = np.full(len(maps), np.nan) if wavelength is None else wavelength
    lengths = lengths.astype(maps.dtype)
    one = jax.ShapeDtypeStruct((size, size), maps.dtype)
    try:
        jax.eval_shape(lambda image: predict_lens(predictor, image, REFERENCE), one)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"initial: the predictor is not made for maps of {size} × {size} pixels; train one "
            f"with size = {size}"
        ) from error
    classes = structure_hash(predictor)
    return by_chunks(
        lambda rows: _predict(predictor, maps[rows], lengths[rows], known=known, classes=classes),
        len(maps),
    )


@functools.partial(jax.jit, static_argnames=("known", "classes"))
def _predict(
    predictor: Predictor, maps: Array, wavelength: Array, *, known: bool, classes: int
) -> Prediction:
    del classes  # see `structure_hash`

    def one(phase: Array, length: Array) -> Prediction:
        return predict_lens(predictor, phase, length if known else None)

    return jax.vmap(one)(maps, wavelength)


def sample_lenses(
    predictor: Predictor,
    key: PRNGKeyArray,
    phase: Float[Array, "n n"],
    n: int,
    wavelength: Any = None,
) -> Float[Array, "s 5"]:
    """Draw lenses to start from, within the ranges.

    Args:
        predictor: of any kind.
        key: of the draws.
        phase: one map [rad]; NaN is missing.
        n: how many.
        wavelength: λ [µm]; None if unknown.

    Returns:
        Lenses [µm], shape (n, 5).
    """
    kind = kind_of(predictor)
    length = None if wavelength is None else jnp.asarray(wavelength, phase.dtype)
    drawn = predictor.sample(key, phase, n, context(kind, length), _bounds(kind, length))
    return jax.vmap(lambda params: _within(to_lens(kind, params, length)))(drawn)


def _bounds(kind: str, wavelength: Array | None) -> Bounds | None:
    """Return the bounds of ratios for lenses of one wavelength: narrower than those for all."""
    if kind != "ratios":
        return None
    length = REFERENCE if wavelength is None else wavelength
    lower, upper = (jnp.array([end[i] for i in OTHERS]) / length for end in (LOWER, UPPER))
    return lower, upper


def _within(lens: Float[Array, "5"]) -> Float[Array, "5"]:
    """Move a lens into the ranges, but for the wavelength, which may be given."""
    lower, upper = (jnp.asarray(bound, lens.dtype) for bound in (LOWER, UPPER))
    return jnp.clip(lens, lower, upper).at[WAVELENGTH].set(lens[WAVELENGTH])
