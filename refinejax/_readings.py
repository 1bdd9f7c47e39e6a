"""Whether the arrays that `refine` is given are those of one sample or of many."""

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from refinejax._arguments import Arrays, ForwardModel, shapes
from refinejax._gate import LEAVES_JAX, LEFT_JAX
from refinejax._trees import as_pytree


class SampleReading(NamedTuple):
    """How arrays are read.

    Attributes:
        single: as those of one sample.
        shared: names of arguments that are those of one sample, and meant for all.
    """

    single: bool
    shared: tuple[str, ...] = ()

    def apply(self, arrays: Arrays) -> Arrays:
        """Return the arrays with a leading sample axis in all of them."""
        if self.single:
            return arrays.with_axis()
        count = len(jax.tree.leaves(arrays.observations)[0])
        for name in self.shared:
            whole = jax.tree.map(
                lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), getattr(arrays, name)
            )
            arrays = arrays._replace(**{name: whole})
        return arrays


def read_samples(model: ForwardModel, arrays: Arrays, batched: bool | None) -> SampleReading:
    """Say what the arrays are, by what the forward model makes of them.

    One start or one context for all samples is taken where that is the only reading.

    Args:
        model: is asked for the shapes of its prediction, once for each reading in question.
        arrays: as they came.
        batched: which reading to take; None where only one of them fits.

    Raises:
        ValueError: if no reading fits, or both do and ``batched`` does not say which.
    """
    if not model.differentiable:
        return _read(model, arrays, batched)
    known = _signature(model, arrays, batched)
    if known not in _readings:
        _readings[known] = _read(model, arrays, batched)
        while len(_readings) > _MOST_READINGS:
            _readings.pop(next(iter(_readings)))
    return _readings[known]


_readings: dict[Any, SampleReading] = {}  # by what decides: the model's content and shapes
_MOST_READINGS = 256


def _signature(model: ForwardModel, arrays: Arrays, batched: bool | None) -> Any:
    leaves, structure = jax.tree.flatten((as_pytree(model.forward), arrays))
    described = tuple((np.shape(leaf), str(np.asarray(leaf).dtype)) for leaf in leaves)
    return structure, described, batched


def _read(model: ForwardModel, arrays: Arrays, batched: bool | None) -> SampleReading:
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(arrays)}
    divisible = len(lengths) == 1 and () not in lengths
    if divisible and batched is not False and 0 in next(iter(lengths)):
        raise ValueError("initial: empty batch; there is nothing to refine")
    many = one = "not tried"
    if batched is not False:
        many = _misfit_many(model, arrays) if divisible else _NOT_DIVISIBLE
    if batched is not True:
        one = _misfit(model, arrays)
    if not many and not one:
        raise ValueError(_both_fit(arrays))
    if many and one:
        return _shared(model, arrays, batched) or _raise(_no_fit(arrays, many, one, batched))
    if many and batched is None and _looks_batched(arrays):
        raise ValueError(_only_whole(arrays, many))
    if one and batched is None and _start_for_all(model, arrays):
        raise ValueError(_number_or_start(arrays))
    return SampleReading(single=not one)


def _raise(error: ValueError) -> SampleReading:
    raise error


def _shared(model: ForwardModel, arrays: Arrays, batched: bool | None) -> SampleReading | None:
    """Return the one reading with a start or a context for all samples; None if there is none."""
    observed = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(arrays.observations)}
    if batched is False or len(observed) != 1 or () in observed or (0,) in observed:
        return None
    names = ("initial",) if arrays.context is None else ("initial", "context")
    found = []
    for shared in itertools.chain.from_iterable(
        itertools.combinations(names, size) for size in range(1, len(names) + 1)
    ):
        own = [getattr(arrays, name) for name in ("initial", "context") if name not in shared]
        if {np.shape(leaf)[:1] for leaf in jax.tree.leaves(own)} <= observed:
            first = SampleReading(False, shared).apply(arrays).first()
            if not _misfit(model, first) and not _may_be_rows(model, first, shared):
                found.append(shared)
    if len(found) > 1:
        said = " or ".join(" and ".join(shared) for shared in found)
        raise ValueError(
            f"{found[0][0]}: {said} may be meant for all samples; give each a leading sample axis"
        )
    return SampleReading(False, found[0]) if found else None


def _may_be_rows(model: ForwardModel, first: Arrays, shared: tuple[str, ...]) -> bool:
    """Whether arguments fit as rows for samples too, of which there would be another number."""
    for size in range(1, len(shared) + 1):
        for names in itertools.combinations(shared, size):
            parts = {name: getattr(first, name) for name in names}
            if any(not np.shape(leaf)[:1] > (0,) for leaf in jax.tree.leaves(parts)):
                continue
            rows = {name: jax.tree.map(lambda leaf: leaf[0], part) for name, part in parts.items()}
            if not _misfit(model, first._replace(**rows)):
                return True
    return False


def _looks_batched(arrays: Arrays) -> bool:
    """Whether observations and params seem to have a leading sample axis of more than one."""
    begun = jax.tree.leaves(arrays.initial)
    observed = jax.tree.leaves(arrays.observations)
    lengths = {np.shape(leaf)[:1] for leaf in (*begun, *observed)}
    alone = jax.tree_util.all_leaves([arrays.initial])  # (n,) may be n params of one sample
    ranks = [np.ndim(leaf) for leaf in (begun if alone else observed)]
    return len(lengths) == 1 and not lengths & {(), (1,)} and min(ranks) > 1


def _start_for_all(model: ForwardModel, arrays: Arrays) -> bool:
    """Whether a number for each sample may be meant as one start of as many params for all."""
    if any(np.ndim(leaf) != 1 or len(leaf) < 2 for leaf in jax.tree.leaves(arrays.initial)):
        return False
    return not _misfit(model, arrays.first()._replace(initial=arrays.initial))


def _number_or_start(arrays: Arrays) -> str:
    begun = shapes(arrays.initial)
    count = len(jax.tree.leaves(arrays.initial)[0])
    return (
        f"initial: shape {begun} can be read in two ways: as a number for each of {count} samples "
        f"(give shape ({count}, 1), or batched=True), or as one start of {count} params for all "
        f"samples (give shape ({count}, {count}))"
    )


def _only_whole(arrays: Arrays, many: Any) -> str:
    begun, count = shapes(arrays.initial), len(jax.tree.leaves(arrays.initial)[0])
    one = jax.tree.map(lambda leaf: np.shape(leaf)[1:], arrays.initial)
    why = f"{type(many).__name__}: {many}" if isinstance(many, Exception) else many
    return (
        f"batched: observations of shape {shapes(arrays.observations)} and initial of shape "
        f"{begun} look like {count} samples along the leading axis, but the forward model takes "
        f"all at once, which makes them one sample with params of shape {begun}. Write it for one "
        f"sample (params of shape {one}; refine maps it over the "
        f"samples), or say batched=False if it is one. As one of {count} samples: {why}"
    )


_NOT_DIVISIBLE = "the leading axes differ, or there are none"


def _misfit(model: ForwardModel, sample: Arrays) -> str | Exception:
    """Return why the arrays are not those of a sample; nothing if they are."""
    try:
        predicted = model.shapes(sample.initial, sample.context)
    except Exception as why:  # anything that a forward model may raise
        return why
    observed = shapes(sample.observations)
    return (
        "" if predicted == observed else f"it gives {predicted} where the observation is {observed}"
    )


def _misfit_many(model: ForwardModel, arrays: Arrays) -> str | Exception:
    """Return why the arrays are not samples along the leading axis; nothing if they are.

    A black box may fail at the start of some: the first for which it does not decides.
    """
    first = why = _misfit(model, arrays.first())
    if model.differentiable:
        return why
    for index in range(1, len(jax.tree.leaves(arrays)[0])):
        if not isinstance(why, Exception):
            return why
        why = _misfit(model, jax.tree.map(lambda leaf, at=index: leaf[at], arrays))
    return first if isinstance(why, Exception) else why


def _both_fit(arrays: Arrays) -> str:
    observed, begun = shapes(arrays.observations), shapes(arrays.initial)
    count = len(jax.tree.leaves(arrays.initial)[0])
    return (
        f"batched: observations of shape {observed} and initial of shape {begun} can be read in "
        f"two ways: as {count} samples along the leading axis (batched=True; params of shape "
        f"{shapes(arrays.first().initial)} each), or as one sample with params of shape {begun} "
        "(batched=False); say which"
    )


def _no_fit(arrays: Arrays, many: Any, one: Any, batched: bool | None) -> ValueError:
    why = many if batched or (batched is None and many is not _NOT_DIVISIBLE) else one
    reading = {
        None: "taken as samples along the leading axis (which must be the same) or as one sample",
        True: "taken as samples along the leading axis, as batched=True says",
        False: "taken as one sample, as batched=False says",
    }[batched]
    said = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
    left = isinstance(why, LEAVES_JAX)
    said = f"{said.splitlines()[0]}. It {LEFT_JAX}" if left else said
    error = ValueError(
        f"forward: does not fit the arrays. Params of shape {shapes(arrays.initial)} and "
        f"observations of shape {shapes(arrays.observations)}, {reading}: {said}"
    )
    error.__cause__ = why if isinstance(why, Exception) else None
    return error
