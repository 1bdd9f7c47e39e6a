"""A trained multi-task model for the benchmark of target search, and its forward pass in NumPy."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from refinejax.apps.latent import fit
from refinejax.apps.latent.multitask import MultiTaskModel
from refinejax.training import TrainingConfig

WIDTH, HIDDEN_WIDTH = 12, 4
NUMBERS, KIND, CLASSES = ("density", "conductivity"), "phase", 3
NETWORK = {"latent": 8, "hidden": [64, 64], "head": [32]}


class Study(NamedTuple):
    """Data, a model of them, and the targets.

    Attributes:
        model: trained on the data.
        inputs: descriptors, float32 (N, 12).
        wanted: of the two numbers.
        kind: the class that is asked for.
    """

    model: MultiTaskModel
    inputs: np.ndarray
    wanted: tuple[float, float]
    kind: int


def make_study(seed: int, rows: int, steps: int, reconstruction: float = 1.0) -> Study:
    """Draw descriptors near a curved surface of four dimensions, and train a model on them."""
    random = np.random.default_rng(seed)
    hidden = random.uniform(-1, 1, (rows, HIDDEN_WIDTH))
    mix = random.standard_normal((HIDDEN_WIDTH, WIDTH))
    inputs = np.sin(hidden @ mix) + 0.5 * (hidden**2) @ np.abs(mix)
    inputs += 0.05 * random.standard_normal(inputs.shape)
    density = 4 + np.sin(2 * hidden[:, 0]) + hidden[:, 1] * hidden[:, 2]
    conductivity = np.exp(hidden[:, 3]) + 0.5 * hidden[:, 0] ** 2
    kinds = np.argmax(hidden[:, :3] + 0.3 * random.standard_normal((rows, 3)), axis=1)
    labels = {"density": density, "conductivity": conductivity, "phase": kinds}
    training = TrainingConfig(
        steps=steps, learning_rate=3e-3, weight_decay=1e-3, validate_every=steps // 4, seed=seed
    )
    fitted = fit(
        inputs, labels, network=NETWORK, training=training, batch=128, reconstruction=reconstruction
    )
    wanted = (float(np.quantile(density, 0.8)), float(np.quantile(conductivity, 0.3)))
    return Study(fitted.model, inputs.astype(np.float32), wanted, 1)


def weights64(model: MultiTaskModel) -> dict[str, Any]:
    """Return the weights as float64: pairs (kernel, bias) by part, and the units."""

    def layers(part: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        there = [part["hidden"][i] for i in sorted(part["hidden"])] + [part["last"]]
        return [(np.asarray(x["kernel"], float), np.asarray(x["bias"], float)) for x in there]

    parts = model.network.weights
    heads = {task.name: layers(parts["heads"][i]) for i, task in enumerate(model.tasks)}
    units = {name: (model.means[name], model.scales[name]) for name in model.means}
    return {
        "encoder": layers(parts["encoder"]),
        "decoder": layers(parts["decoder"]),
        "heads": heads,
        "units": {n: (float(m[0]), float(s[0])) for n, (m, s) in units.items()},
        "mean": np.asarray(model.input_mean, float),
        "scale": np.asarray(model.input_scale, float),
    }


def judge(study: Study, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return loss and class probability of inputs (..., 12), in float64, apart from the search."""
    weights = weights64(study.model)
    x = (inputs.astype(float) - weights["mean"]) / weights["scale"]
    latent = np.tanh(_perceptron(weights["encoder"], x))
    loss = np.zeros(inputs.shape[:-1])
    for name, wanted in zip(NUMBERS, study.wanted, strict=True):
        mean, scale = weights["units"][name]
        output = mean + scale * _perceptron(weights["heads"][name], latent)[..., 0]
        loss += ((output - wanted) / scale) ** 2
    logits = _perceptron(weights["heads"][KIND], latent)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits[..., study.kind] - np.log(np.exp(logits).sum(-1))
    return loss - log_p, np.exp(log_p)


def _perceptron(layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    for kernel, bias in layers[:-1]:
        x = x @ kernel + bias
        x = x * expit(x)
    kernel, bias = layers[-1]
    return x @ kernel + bias
