"""The options of `optimize_latent` in groups: the search, its units, the targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refinejax._checks import check_positive
from refinejax.apps.latent.checks import check_bounds, check_parts, check_transform
from refinejax.apps.latent.closeness import Closeness
from refinejax.apps.latent.constraints import Equality, Inequality
from refinejax.apps.latent.description import Heads
from refinejax.apps.latent.objective import LatentObjective
from refinejax.apps.latent.resolving import resolve
from refinejax.apps.latent.targets import Target
from refinejax.problems.transforms import PowerOfTwo


@dataclass(frozen=True)
class Search:
    """How a search goes: over what, from which starts, and how careful it is.

    Attributes:
        over: "input" or "latent"; "auto": the latent if it can be decoded.
        restarts: R, starts of each sample: the sample itself, and others around it.
        std: standard deviation of the others, in units of ``scale`` (of the latent: in its own).
        scale: typical size of a change of each descriptor; by default of the model's training data,
            else the widths of the bounds, else 1. Rounded to powers of two.
        tradeoffs: draw weights of the targets anew for each start but the first, so that candidates
            spread along the front where targets conflict.
        caution: κ: with an ensemble, the prediction that counts is κ standard deviations worse.
        alignment: weight of the mean squared difference of a latent and its round trip.

    Raises:
        ValueError: names the attribute that does not fit.
    """

    over: str = "auto"
    restarts: int = 8
    std: Any = 0.3
    scale: Any = None
    tradeoffs: bool = False
    caution: float = 1.0
    alignment: float = 0.5

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        if self.over not in ("auto", "input", "latent"):
            raise ValueError(f"over: expected 'auto', 'input' or 'latent', got {self.over!r}")
        check_positive("restarts", self.restarts, "1 start of each sample")
        for name, number in (("caution", self.caution), ("alignment", self.alignment)):
            if not np.ndim(number) == 0 or not float(number) >= 0:
                raise ValueError(f"{name}: expected a number of 0 or more, got {number!r}")

    def deviations(self, size: int) -> np.ndarray:
        """Return ``std`` as an array, for an unknown of this many numbers.

        Args:
            size: how many numbers are searched for.

        Raises:
            ValueError: if it is neither one number of 0 or more, nor as many.
        """
        try:
            array = np.asarray(self.std, float)
            fits = array.shape in ((), (size,))
            fits &= bool(np.all(np.isfinite(array) & (array >= 0)))
        except (TypeError, ValueError):
            fits, array = False, np.zeros(())
        if not fits:
            raise ValueError(f"std: expected one number of 0 or more, or {size}, got {self.std!r}")
        return array


class Asked(NamedTuple):
    """Targets, constraints and closeness.

    Attributes:
        targets: as objects.
        constraints: targets with a limit, closeness, functions of the input.
        closeness: penalties on the distance from the data or the start.
        sizes: numbers of each head's output.
    """

    targets: tuple[Target, ...]
    constraints: tuple[Any, ...]
    closeness: tuple[Any, ...]
    sizes: Mapping[str, int]


class Setting(NamedTuple):
    """Where the search goes on: over what, within what, and in which units.

    Attributes:
        over: "input" or "latent".
        transform: from u to x.
        bounds: (lower, upper) of the input, or None.
        shown: typical changes of the descriptors, shape (D,).
    """

    over: str
    transform: Any
    bounds: tuple[np.ndarray, np.ndarray] | None
    shown: np.ndarray


def make_setting(
    info: Heads, samples: np.ndarray, search: Search, bounds: Any, transform: Any
) -> Setting:
    """Return over what the search goes, and in which units.

    Args:
        info: the model and its heads.
        samples: shape (B, D).
        search: how the search goes.
        bounds: (lower, upper) of the input, "data", or None.
        transform: of the input.

    Raises:
        ValueError: for bounds, a transform or a scale that does not fit the samples or each other.
    """
    over, scale = search.over, search.scale
    if over == "latent" and not info.decodes:
        raise ValueError("over: a search over the latent needs decode, to return inputs")
    latent = info.decodes and transform is None if over == "auto" else over == "latent"
    width = samples.shape[1]
    limits = check_bounds(bounds, width, samples.dtype, info)
    if transform is not None:
        if latent:
            raise ValueError("transform: it is for a search over the input; say over='input'")
        if limits is not None or scale is not None:
            raise ValueError(
                "transform: it says which inputs are allowed, in which units; leave out bounds and "
                "scale, or put an Interval into Columns"
            )
        check_transform(transform, samples)
        return Setting("input", transform, None, np.ones(width))
    given = scale is not None
    if scale is None and info.trained is not None:
        scale = info.trained.input_scale
    if scale is None:
        scale = np.ones(width) if limits is None else limits[1] - limits[0]
    try:
        wide = np.broadcast_to(np.asarray(scale, float), (width,))
    except (TypeError, ValueError):
        raise ValueError(f"scale: expected one number or {width}, got {scale!r}") from None
    if given and not np.all(np.isfinite(wide) & (wide > 0)):
        raise ValueError(f"scale: expected finite numbers above 0, got {scale!r}")
    made = PowerOfTwo.near(wide)
    return Setting("latent" if latent else "input", made, limits, np.asarray(made.scale, float))


def make_objective(
    info: Heads, setting: Setting, samples: np.ndarray, asked: Asked, search: Search
) -> LatentObjective:
    """Return the objective with a leading axis of samples; the latents of the start are blank.

    Args:
        info: the model and its heads.
        samples: shape (B, D).
        asked: targets, constraints and closeness.
        search: how the search goes.
        setting: over what, and in which units.

    Raises:
        ValueError: for closeness or constraints of another type, or that do not fit the model.
    """
    count, dtype = len(samples), samples.dtype
    closeness, constraints = asked.closeness, asked.constraints
    for one in closeness:
        if not isinstance(one, Closeness):
            raise ValueError(f"closeness: expected Mahalanobis and the like, got {one!r}")
    for one in constraints:
        if not isinstance(one, Target | Closeness | Inequality | Equality):
            raise ValueError(
                f"constraints: expected targets with a limit, closeness, Inequality or Equality, "
                f"got {one!r}"
            )
    held = [one for one in constraints if isinstance(one, Target)]
    made = resolve(asked.targets, info, asked.sizes, count, dtype)
    rest = iter(resolve(tuple(held), info, asked.sizes, count, dtype, "constraints"))
    low, high = setting.bounds or (None, None)
    objective = LatentObjective(
        model=info.model,
        transform=setting.transform,
        targets=made,
        constraints=tuple(next(rest) if isinstance(c, Target) else c for c in constraints),
        closeness=closeness,
        start=(samples, samples),
        multipliers=np.zeros((count, 0), dtype),
        stiffness=np.ones(count, dtype),
        alignment=np.asarray(search.alignment, dtype),
        caution=np.asarray(search.caution, dtype),
        lower=low,
        upper=high,
        key_ids=(np.zeros(count, np.int32), np.zeros(count, np.int32)),
        over=setting.over,
        members=info.members,
    )
    check_parts(objective)
    return objective


def as_tuple(given: Any, kind: Any) -> tuple[Any, ...]:
    """Return one thing of a kind, or several of them, as a tuple.

    Args:
        given: what was given.
        kind: its type, or several types.
    """
    return (given,) if isinstance(given, kind) else tuple(given)
