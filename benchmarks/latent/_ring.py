"""An autoencoder that is exact on its data and folds the latent everywhere else: points of a ring.

An input is (cos a, sin a, tanh h), its latent (a, h) with −π < a ≤ π. The decoder takes any a, so
a latent a turn away gives the same input. The class grows more probable with a. A search over the
latent alone therefore increases a without end, and the input it returns is no better than others.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from refinejax.apps.latent import InClasses, LatentModel, optimize_latent

SLOPE, MIDDLE = 1.0, 0.5


def encode(x: Array) -> Array:
    """Return (a, h)."""
    return jnp.stack([jnp.arctan2(x[1], x[0]), jnp.arctanh(jnp.clip(x[2], -0.99, 0.99))])


def decode(z: Array) -> Array:
    """Return (cos a, sin a, tanh h)."""
    return jnp.stack([jnp.cos(z[0]), jnp.sin(z[0]), jnp.tanh(z[1])])


def heads(z: Array) -> dict[str, Array]:
    """Return logits of two classes."""
    return {"kind": jnp.stack([SLOPE * (z[0] - MIDDLE), jnp.zeros_like(z[0])])}


def make_inputs(count: int, seed: int) -> np.ndarray:
    """Draw points on a part of the ring where the class is improbable."""
    random = np.random.default_rng(seed)
    angle, height = random.uniform(-2, 1, count), random.normal(0, 0.5, count)
    return np.stack([np.cos(angle), np.sin(angle), np.tanh(height)], 1).astype(np.float32)


def probability(x: np.ndarray) -> np.ndarray:
    """Return the probability of the class for inputs, in float64."""
    x = x.astype(float)
    a = np.arctan2(x[..., 1], x[..., 0])
    return 1 / (1 + np.exp(-SLOPE * (a - MIDDLE)))


def latent_alone(inputs: np.ndarray, *, rate: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Search over the latent, scored there, by Adam in PyTorch: probability claimed, and inputs."""
    import torch  # pyright: ignore[reportMissingImports]  # in the extra `bench`

    x = torch.tensor(inputs)
    z = torch.stack([torch.atan2(x[:, 1], x[:, 0]), torch.atanh(x[:, 2].clip(-0.99, 0.99))], 1)
    z = z.requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        logit = SLOPE * (z[:, 0] - MIDDLE)
        (-torch.nn.functional.logsigmoid(logit)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        claimed = torch.sigmoid(SLOPE * (z[:, 0] - MIDDLE))
        end = torch.stack([torch.cos(z[:, 0]), torch.sin(z[:, 0]), torch.tanh(z[:, 1])], 1)
    return claimed.numpy(), end.numpy()


def ours(inputs: np.ndarray) -> np.ndarray:
    """Search with the defaults; return the inputs."""
    return optimize_latent(LatentModel(heads, encode, decode), [InClasses("kind", 0)], inputs).input
