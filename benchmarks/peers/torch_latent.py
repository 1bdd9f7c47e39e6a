"""Target search as it is written in PyTorch, and by BoTorch, on the same weights.

The loops are those published for multi-task models: Adam on the input or the latent
of a batch, the loss a mean over the batch, restarts one after another from perturbed starts, the
last iterate kept. Float32 on the CPU, eager, on one thread or on one a core, whichever is faster:
see `quickest_threads`.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]  # in the extra `bench`
from torch.nn.functional import (  # pyright: ignore[reportMissingImports]
    linear,
    log_softmax,
    silu,
)

from benchmarks.latent._model import KIND, NUMBERS, Study, weights64


def quickest_threads(call: Callable[[], Any]) -> int:
    """Let PyTorch use as many threads as make a call quickest, and return the number."""
    seconds = {}
    for threads in (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        call()
        begun = time.perf_counter()
        call()
        seconds[threads] = time.perf_counter() - begun
    best = min(seconds, key=lambda threads: seconds[threads])
    torch.set_num_threads(best)
    return best


class TorchModel:
    """The model of a study in PyTorch."""

    def __init__(self, study: Study, dtype: Any = torch.float32) -> None:
        weights = weights64(study.model)
        self.dtype = dtype
        self.encoder = self._layers(weights["encoder"])
        self.decoder = self._layers(weights["decoder"])
        self.heads = {name: self._layers(head) for name, head in weights["heads"].items()}
        self.units = weights["units"]
        self.mean, self.scale = (self._tensor(weights[name]) for name in ("mean", "scale"))
        self.wanted, self.kind = dict(zip(NUMBERS, study.wanted, strict=True)), study.kind

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=self.dtype)

    def _layers(self, layers: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(self._tensor(kernel.T.copy()), self._tensor(bias)) for kernel, bias in layers]

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latent of inputs."""
        return torch.tanh(_perceptron(self.encoder, (x - self.mean) / self.scale))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Return the input of latents."""
        return self.mean + self.scale * _perceptron(self.decoder, z)

    def losses(self, z: torch.Tensor) -> torch.Tensor:
        """Return the loss of each latent."""
        total = torch.zeros(z.shape[:-1], dtype=self.dtype)
        for name in NUMBERS:
            mean, scale = self.units[name]
            output = _perceptron(self.heads[name], z)[..., 0]
            total = total + (output - (self.wanted[name] - mean) / scale) ** 2
        logits = _perceptron(self.heads[KIND], z)
        return total - log_softmax(logits, -1)[..., self.kind]


def _perceptron(layers: list[Any], x: torch.Tensor) -> torch.Tensor:
    for kernel, bias in layers[:-1]:
        x = silu(linear(x, kernel, bias))
    return linear(x, *layers[-1])


def literature(
    model: TorchModel,
    starts: np.ndarray,
    *,
    rate: float,
    steps: int,
    spread: float = 0.3,
    restarts: int = 8,
    latent: bool = False,
) -> np.ndarray:
    """Return the inputs found, (restarts, B, D)."""
    torch.manual_seed(0)
    x = torch.tensor(starts, dtype=model.dtype)
    found = []
    with torch.no_grad():
        origin = model.encode(x) if latent else (x - model.mean) / model.scale
    for restart in range(restarts):
        noise = spread * torch.randn_like(origin) if restart else torch.zeros_like(origin)
        moved = (origin + noise).requires_grad_(True)
        optimizer = torch.optim.Adam([moved], lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            z = moved if latent else model.encode(model.mean + model.scale * moved)
            model.losses(z).mean().backward()
            optimizer.step()
        with torch.no_grad():
            end = model.decode(moved) if latent else model.mean + model.scale * moved
            found.append(end.numpy())
    return np.stack(found)


def botorch(
    model: TorchModel,
    starts: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    *,
    parallel: bool | None,
    together: int,
) -> np.ndarray:
    """Return the inputs found by `gen_candidates_scipy` from starts (N, D), within bounds.

    Args:
        model: in float64, as BoTorch advises.
        starts: already perturbed.
        bounds: lower and upper.
        parallel: whether each start is a problem of its own, with evaluations together.
        together: how many starts are given at once.
    """
    from botorch.generation.gen import (  # pyright: ignore[reportMissingImports]
        gen_candidates_scipy,
    )

    low, high = (torch.tensor(b, dtype=model.dtype) for b in bounds)
    width = high - low

    def value(points: torch.Tensor) -> torch.Tensor:
        return -model.losses(model.encode(low + width * points[:, 0]))

    unit = (torch.tensor(starts, dtype=model.dtype) - low) / width
    parts = [
        gen_candidates_scipy(
            part[:, None],
            value,
            lower_bounds=torch.zeros_like(low),
            upper_bounds=torch.ones_like(low),
            use_parallel_mode=parallel,
        )[0][:, 0]
        for part in torch.split(unit, together)
    ]
    return (low + width * torch.cat(parts)).numpy()
