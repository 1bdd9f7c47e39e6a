"""Training a predictor of lenses on phase maps that are simulated on the way."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._config import read_config
from refinejax._core import Scalar
from refinejax.apps.metalens.architecture import build_predictor
from refinejax.apps.metalens.cascade.scale import OTHERS, WAVELENGTH
from refinejax.apps.metalens.config import PredictorTaskConfig
from refinejax.apps.metalens.losses import physics_consistency, slope_consistency
from refinejax.apps.metalens.prediction import (
    context,
    kind_of,
    lens_space,
    predict_lens,
    targets,
    to_lens,
)
from refinejax.networks.losses import (
    at_scale,
    curriculum,
    gaussian_nll,
    learned_uncertainty,
    standardized_mse,
)
from refinejax.networks.predictor import Moments, Predictor, mixture
from refinejax.physics import metalens
from refinejax.physics.metalens.lens import LOWER, NAMES, UPPER
from refinejax.physics.noise import PhaseNoise, apply_noise
from refinejax.physics.phase import phase_rmse
from refinejax.training.plans import TrainingPlan

_CONSISTENCY = {"slopes": slope_consistency, "phase": physics_consistency}
_CHUNK = 64  # maps of a validation at once


class LensMap(NamedTuple):
    """A lens and its phase map.

    Attributes:
        phase: wrapped map [rad].
        lens: params [µm].
    """

    phase: Float[Array, "*b n n"]
    lens: Float[Array, "*b 5"]


class PredictorTask(struct.PyTreeNode):
    """Lenses drawn uniformly from the ranges, their noisy maps, and a predictor's loss on them.

    A training task: weights are the `Predictor`, all of whose leaves are learned.

    Attributes:
        noise: at level 1.
        levels: between which each map draws its level.
        beta: see `PredictorTaskConfig`, also for the other attributes.
        physics_weight: beside the loss.
        ramp: (first, last) [steps].
        size: n, pixels along each side; static.
        batch: maps of a step; static.
        validation: maps of a validation; static.
        loss: its name; static.
        physics: its name; static.
        model: configuration of the predictor as JSON; static.
    """

    noise: PhaseNoise
    levels: tuple[Any, Any]
    beta: Any
    physics_weight: Any
    ramp: tuple[Any, Any]
    size: int = struct.field(pytree_node=False)
    batch: int = struct.field(pytree_node=False)
    validation: int = struct.field(pytree_node=False)
    loss: str = struct.field(pytree_node=False)
    physics: str = struct.field(pytree_node=False)
    model: str = struct.field(pytree_node=False)

    @classmethod
    def of(cls, task: Mapping[str, Any], network: Mapping[str, Any]) -> "PredictorTask":
        """Build a task and check it.

        Args:
            task: the keys of `PredictorTaskConfig`.
            network: the key "network" of `build_predictor`.

        Returns:
            The task.

        Raises:
            ValueError: names the keys that are unknown or do not fit.
        """
        config = read_config(PredictorTaskConfig, task, "task")
        made = cls(
            noise=PhaseNoise.only(*config.noise).replace(grain_kind=config.grain),
            levels=config.levels,
            beta=config.beta,
            physics_weight=config.physics_weight,
            ramp=config.ramp,
            size=config.size,
            batch=config.batch,
            validation=config.validation,
            loss=config.loss,
            physics=config.physics,
            model=json.dumps(_model(config, network)),
        )
        jax.eval_shape(made.init, jax.random.key(0))  # checks the network
        return made

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the predictor, as `build_predictor` reads it."""
        return json.loads(self.model)

    def init(self, key: PRNGKeyArray) -> Predictor:
        """Return a predictor with random weights."""
        return build_predictor(self.config, key)

    def begin(self, weights: Predictor, key: PRNGKeyArray) -> tuple[()]:
        """Return nothing: each step draws its own maps."""
        del weights, key
        return ()

    def simulate(self, key: PRNGKeyArray) -> LensMap:
        """Draw one lens and its map.

        Args:
            key: of the lens, the level and the noise.

        Returns:
            The lens and its map.
        """
        where, level, noise = jax.random.split(key, 3)
        lens = jax.random.uniform(where, (5,), minval=jnp.array(LOWER), maxval=jnp.array(UPPER))
        low, high = self.levels
        share = jax.random.uniform(level, (), lens.dtype, low, high)
        phase = metalens.phase(lens, self.size)
        return LensMap(apply_noise(self.noise.scaled(share), noise, phase), lens)

    def loss_and_grad(
        self, weights: Predictor, memory: tuple[()], step: Any, key: PRNGKeyArray
    ) -> tuple[Scalar, Predictor, tuple[()], dict[str, Scalar]]:
        """Return loss and gradient on maps drawn from the key."""
        samples = jax.vmap(self.simulate)(jax.random.split(key, self.batch))
        share = curriculum(step, *self.ramp)
        (loss, parts), grad = jax.value_and_grad(self._total, has_aux=True)(
            weights, samples, self.physics_weight * share
        )
        return loss, grad, memory, {**parts, "curriculum": share}

    def validate(self, weights: Predictor, key: PRNGKeyArray) -> dict[str, Scalar]:
        """Return the loss and how far predictions are off, over maps drawn from the key.

        "loss": of the mixture, without β and the physics; "mae_…": mean absolute error in % of the
        range, the wavelength being known; "rmse": residual [rad]; "calibration": mean squared error
        in units of the variance predicted, 1 if that is right.
        """
        keys = jax.random.split(key, self.validation)
        scores = jax.lax.map(lambda key: self._score(weights, key), keys, batch_size=_CHUNK)
        return jax.tree.map(jnp.mean, scores)

    def _score(self, predictor: Predictor, key: PRNGKeyArray) -> dict[str, Array]:
        """Return the numbers of a validation for one map."""
        sample, kind = self.simulate(key), kind_of(predictor)
        length = sample.lens[WAVELENGTH]
        whole = mixture(predictor.moments(sample.phase, context(kind, length)))
        lens, std = predict_lens(predictor, sample.phase, length)
        error = lens - sample.lens
        percent = 100 * jnp.abs(error) / (jnp.array(UPPER) - jnp.array(LOWER))
        scores = {f"mae_{NAMES[i]}": percent[i] for i in OTHERS}
        if kind == "predicted":
            own = jnp.abs(predict_lens(predictor, sample.phase).params[WAVELENGTH] - length)
            width = UPPER[WAVELENGTH] - LOWER[WAVELENGTH]
            scores[f"mae_{NAMES[WAVELENGTH]}"] = 100 * own / width
        return {
            "loss": self.error(predictor, whole, sample.lens, beta=0.0),
            "rmse": phase_rmse(metalens.phase(lens, self.size), sample.phase),
            "calibration": jnp.mean(jnp.delete(error / std, WAVELENGTH) ** 2),
            **scores,
        }

    def _total(
        self, predictor: Predictor, samples: LensMap, weight: Scalar
    ) -> tuple[Scalar, dict[str, Scalar]]:
        kind = kind_of(predictor)
        lengths = samples.lens[:, WAVELENGTH]
        moments = jax.vmap(lambda s, w: predictor.moments(s, context(kind, w)))(
            samples.phase, lengths
        )
        each = jax.vmap(jax.vmap(lambda m, p: self.error(predictor, m, p, self.beta), (0, None)))
        data = jnp.mean(each(moments, samples.lens))
        both = jax.vmap(jax.vmap(lambda m, s: self._physics(predictor, m, s), (0, None)))
        physics = jax.lax.cond(
            weight > 0,
            lambda means: jnp.mean(both(means, samples)),
            lambda means: jnp.zeros((), means.dtype),
            moments.mean,
        )
        return data + weight * physics, {"data": data, "physics": physics}

    def error(
        self, predictor: Predictor, moments: Moments, lens: Float[Array, "5"], beta: Any
    ) -> Scalar:
        """Return the loss of a prediction, without the physics.

        Args:
            predictor: any.
            moments: of its prediction for one map, shape (n,).
            lens: the truth [µm].
            beta: see `gaussian_nll`.
        """
        kind, space = kind_of(predictor), predictor.space
        target = space.to_unit(targets(kind, lens))
        if kind == "predicted":
            moments = _at_wavelength(predictor, moments, lens)
        mean, log_variance = moments
        match self.loss:
            case "nll":
                return gaussian_nll(mean, log_variance, target, beta)
            case "uncertainty":
                return learned_uncertainty(mean - target, log_variance)
            case _:
                # the variances learn what the error is, and take no part in it
                error = jax.lax.stop_gradient(mean) - target
                return standardized_mse(mean, target) + learned_uncertainty(error, log_variance)

    def _physics(self, predictor: Predictor, mean: Array, sample: LensMap) -> Scalar:
        kind = kind_of(predictor)
        length = None if kind == "predicted" else sample.lens[WAVELENGTH]
        lens = to_lens(kind, predictor.space.from_unit(mean), length)
        return _CONSISTENCY[self.physics](metalens.phase(lens, self.size), sample.phase)


def plan_predictor(config: Mapping[str, Any]) -> TrainingPlan:
    """Return how a predictor of lenses is trained.

    Args:
        config: tables "task" (`PredictorTaskConfig`) and "network" (see `build_predictor`).

    Returns:
        The plan.

    Raises:
        ValueError: names the table or key that is unknown or does not fit.
    """
    task = PredictorTask.of(config.get("task", {}), config.get("network", {}))
    return TrainingPlan(task, "predictor", task.config, "network")


def _model(config: PredictorTaskConfig, network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the predictor."""
    space = lens_space(config.wavelength)
    return {
        "size": config.size,
        "names": space.names,
        "lower": [float(x) for x in space.lower],
        "upper": [float(x) for x in space.upper],
        "units": space.units,
        "features": config.features,
        "block": config.block,
        "context": int(config.wavelength == "known"),
        "members": config.members,
        "heteroscedastic": config.loss == "nll",
        "network": dict(network),
    }


def _at_wavelength(predictor: Predictor, moments: Moments, lens: Float[Array, "5"]) -> Moments:
    """Scale a prediction to the wavelength of the lens, but for the wavelength itself.

    The remaining errors are one in the params that a map determines, and one in the wavelength,
    which keeps the scale of the predictions from drifting.
    """
    lower, upper = (jnp.asarray(bound, moments.mean.dtype) for bound in predictor.space.bounds)
    params = lower + moments.mean * (upper - lower)
    held = params.at[WAVELENGTH].set(
        jnp.clip(params[WAVELENGTH], lower[WAVELENGTH], upper[WAVELENGTH])
    )
    scaled = at_scale(held, lens, WAVELENGTH).at[WAVELENGTH].set(params[WAVELENGTH])
    factor = (lens[WAVELENGTH] / held[WAVELENGTH]) * jnp.ones_like(params)
    wider = 2 * jnp.log(factor.at[WAVELENGTH].set(1))
    return Moments((scaled - lower) / (upper - lower), moments.log_variance + wider)
