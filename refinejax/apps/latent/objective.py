"""The loss of one start of one sample, after the round trip.

Over the input, x is moved and z = encode(x) follows. Over the latent, z is moved; what counts is
not what the heads say of z but of z' = encode(x), x = decode(z), which is what a model will say of
the input that is handed out. Beside it stands the alignment of z and z', which keeps the search
where the decoder and the encoder are each other's inverse.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from refinejax._core import Problem, Scalar
from refinejax._trees import Bounds
from refinejax.apps.latent.closeness import Closeness
from refinejax.apps.latent.columns import asked
from refinejax.apps.latent.constraints import augmented
from refinejax.apps.latent.pessimism import moments
from refinejax.apps.latent.targets import Target

Outputs = dict[str, Array]


class Functions(struct.PyTreeNode):
    """A model made of functions; a trained one that has these three methods needs no such thing.

    Attributes:
        outputs: z → outputs by name, or for each name a function of z.
        encoder: x → z; None: the latent is the input.
        decoder: z → x, or None.
    """

    outputs: Any
    encoder: Any = None
    decoder: Any = None

    def encode(self, x: Array) -> Array:
        """Return z.

        Args:
            x: an input, shape (D,).
        """
        return x if self.encoder is None else self.encoder(x)

    def decode(self, z: Array) -> Array:
        """Return x.

        Args:
            z: a latent, shape (Z,).
        """
        return self.decoder(z)

    def heads(self, z: Array) -> Outputs:
        """Return the outputs by name.

        Args:
            z: a latent, shape (Z,).
        """
        if isinstance(self.outputs, dict):
            return {name: head(z) for name, head in self.outputs.items()}
        found = self.outputs(z)
        return dict(found) if isinstance(found, Mapping) else found


class Place(NamedTuple):
    """Where a candidate is.

    Attributes:
        input: x, within its bounds.
        latent: z, as the search has it.
        returned: encode(x).
        cut: mean square of what the bounds have cut off from the decoded input, in its scale.
    """

    input: Array
    latent: Array
    returned: Array
    cut: Any


class Report(NamedTuple):
    """All there is to say of a candidate.

    Attributes:
        score: the loss of the round trip: targets, with their weights, and closeness.
        losses: of each target, without its weight, shape (targets,).
        misalignment: mean((z − z')²).
        distances: of each closeness, shape (measures,).
        excess: of each constraint, shape (m,).
        columns: what was asked about, as it comes back, shape (T,).
        direct: the same of the latent as the search has it, shape (T,).
        std: standard deviation over the members of an ensemble, shape (T,).
        returned: outputs of all heads for what comes back.
        outputs: outputs of all heads for the latent as the search has it.
        place: input and latents.
    """

    score: Scalar
    losses: Float[Array, " targets"]
    misalignment: Scalar
    distances: Float[Array, " measures"]
    excess: Float[Array, " m"]
    columns: Float[Array, " T"]
    direct: Float[Array, " T"]
    std: Float[Array, " T"]
    returned: Outputs
    outputs: Outputs
    place: Place


class LatentObjective(Problem):
    """The loss of a candidate u for one start of one sample.

    Attributes:
        model: has ``encode``, ``heads`` and, for a search over the latent, ``decode``.
        transform: from u to x, in a search over the input; else its scale is the unit of the cuts.
        targets: of the heads.
        constraints: what must hold: targets, closeness, functions of the input.
        closeness: what keeps the candidate near to the data.
        start: x₀ and encode(x₀).
        multipliers: λ, shape (m,).
        stiffness: ρ.
        alignment: weight of the misalignment.
        caution: κ.
        lower: bounds of x, shape (D,); None for none.
        upper: upper bounds, as ``lower``.
        key_ids: numbers of sample and start, for their keys.
        over: "input" or "latent"; static.
        members: whether outputs have a leading axis of members; static.
    """

    model: Any
    transform: Any
    targets: tuple[Any, ...]
    constraints: tuple[Any, ...]
    closeness: tuple[Any, ...]
    start: tuple[Any, Any]
    multipliers: Any
    stiffness: Any
    alignment: Any
    caution: Any
    lower: Any
    upper: Any
    over: str = struct.field(pytree_node=False)
    members: bool = struct.field(pytree_node=False)
    key_ids: tuple[Any, Any] = (0, 0)

    def __call__(self, params: Float[Array, " n"]) -> Scalar:
        """Return the loss."""
        place = self.place(params)
        outputs = self.model.heads(place.returned)
        score = self._score(self._losses(outputs), self._distances(place))
        score += self.alignment * self._misalignment(place)
        if not self.constraints:
            return score
        excess = self._excess(outputs, place)
        return score + augmented(excess, self.equal(), self.multipliers, self.stiffness)

    @property
    def reorder(self) -> bool:
        """Sums may be reordered: a trained model has no compensated arithmetic."""
        return True

    @property
    def bounds(self) -> Bounds | None:
        """Those of u, in a search over the input."""
        if self.over == "latent" or self.lower is None:
            return None
        return self.transform.inverse(self.lower), self.transform.inverse(self.upper)

    def batch_axes(self) -> "LatentObjective":
        """Return 0 for what belongs to a row, a start of a sample, and None for what all share."""
        own = tuple(0 if isinstance(c, Target) else None for c in self.constraints)
        return self.replace(
            model=None, transform=None, targets=0, constraints=own, closeness=None, start=0,
            multipliers=0, stiffness=0, alignment=None, caution=None, lower=None, upper=None,
            key_ids=0,
        )  # fmt: skip

    def begin(self, x: Float[Array, " D"]) -> Float[Array, " n"]:
        """Return the u of an input."""
        return self.model.encode(x) if self.over == "latent" else self.transform.inverse(x)

    def place(self, params: Float[Array, " n"]) -> Place:
        """Return input and latents of a candidate.

        Args:
            params: u of a candidate, shape (n,).
        """
        if self.over == "input":
            x = self._within(self.transform.forward(params))
            z = self.model.encode(x)
            return Place(x, z, z, jnp.zeros((), x.dtype))
        decoded = self.model.decode(params)
        x = self._within(decoded)
        cut = jnp.mean(self.transform.inverse(decoded - x) ** 2)
        return Place(x, params, self.model.encode(x), cut)

    def _within(self, x: Array) -> Array:
        if self.lower is None or self.upper is None:
            return x
        return jnp.clip(x, self.lower.astype(x.dtype), self.upper.astype(x.dtype))

    def report(self, params: Float[Array, " n"]) -> Report:
        """Return all there is to say of a candidate.

        Args:
            params: u of a candidate, shape (n,).
        """
        place = self.place(params)
        returned, outputs = self.model.heads(place.returned), self.model.heads(place.latent)
        losses, distances = self._losses(returned), self._distances(place)
        columns, std = self.columns(returned)
        return Report(
            self._score(losses, distances), losses, self._misalignment(place), distances,
            self._excess(returned, place), columns, self.columns(outputs)[0], std,
            self._means(returned), self._means(outputs), place,
        )  # fmt: skip

    def sample(self) -> tuple[Array, Scalar, Array, Array]:
        """Return of the sample as it came: latent, loss, excess of the constraints, columns."""
        x = self.start[0]
        own = self.replace(start=(x, self.model.encode(x)))
        outputs, place = own._begun()
        score = own._score(own._losses(outputs), own._distances(place))
        return place.latent, score, own._excess(outputs, place), own.columns(outputs)[0]

    def _begun(self) -> tuple[Outputs, Place]:
        """Return the outputs for the sample as it came, and where it is."""
        x, z = self.start
        return self.model.heads(z), Place(x, z, z, jnp.zeros((), x.dtype))

    def _score(self, losses: Array, distances: Array) -> Scalar:
        weighed = [one.weight * losses[i] for i, one in enumerate(self.targets)]
        held = [one.penalty(distances[i]) for i, one in enumerate(self.closeness)]
        return jnp.sum(jnp.stack([jnp.asarray(term, losses.dtype) for term in weighed + held]))

    def _losses(self, outputs: Outputs) -> Array:
        losses = [one.loss(*self._moments(one, outputs)) for one in self.targets]
        return jnp.stack(losses)

    def _moments(self, target: Any, outputs: Outputs) -> tuple[Array, Array]:
        """Return mean and margin, κσ, of what a target is about."""
        mean, std = self._spread(target, outputs)
        return mean, self.caution.astype(mean.dtype) * std

    def _spread(self, target: Any, outputs: Outputs) -> tuple[Array, Array]:
        output = outputs[target.task]
        if not self.members:
            quantity = target.quantity(jnp.ravel(output))
            return quantity, jnp.zeros_like(quantity)
        return moments(jnp.stack([target.quantity(jnp.ravel(one)) for one in output]))

    def _distances(self, place: Place) -> Array:
        measures = [_far(one, place, self.start) for one in self.closeness]
        return jnp.stack(measures) if measures else jnp.zeros(0, place.input.dtype)

    def _misalignment(self, place: Place) -> Scalar:
        return jnp.mean((place.latent - place.returned) ** 2) + place.cut

    def _excess(self, outputs: Outputs, place: Place) -> Array:
        parts = [jnp.zeros(0, place.input.dtype)]
        for one in self.constraints:
            if isinstance(one, Target):
                parts.append(one.excess(*self._moments(one, outputs)))
            elif isinstance(one, Closeness):
                parts.append(one.excess(_far(one, place, self.start))[None])
            else:
                parts.append(one.at(place.input))
        return jnp.concatenate(parts)

    def equal(self) -> Bool[np.ndarray, " m"]:
        """Return True for the constraints that must be 0, in the order of ``excess``."""
        flags = []
        for one in self.constraints:
            count = jax.eval_shape(self.replace(constraints=(one,)).excess_at_start).size
            flags += [bool(getattr(one, "equality", False))] * count
        return np.array(flags, bool)

    def excess_at_start(self) -> Float[Array, " m"]:
        """Return the constraints' excess where the sample is."""
        return self._excess(*self._begun())

    def columns(self, outputs: Outputs) -> tuple[Array, Array]:
        """Return what was asked about, and its standard deviation: shape (T,) each.

        The numbers of each head once; of logits the probability that each target is about.

        Args:
            outputs: by head.
        """
        columns, deviations = [], []
        for target in asked(self.targets, self.constraints):
            mean, std = self._spread(target, outputs)
            shown = target.shown(mean)
            columns.append(shown)
            deviations.append(std * shown if target.of_class else std)
        return jnp.concatenate(columns), jnp.concatenate(deviations)

    def _means(self, outputs: Outputs) -> Outputs:
        if not self.members:
            return outputs
        return {name: jnp.mean(value, 0) for name, value in outputs.items()}


def _far(closeness: Any, place: Place, start: tuple[Array, Array]) -> Scalar:
    if closeness.space == "input":
        return closeness.distance(place.input, start[0])
    return closeness.distance(place.returned, start[1])
