"""The recipe of `adam_tto` in PyTorch, as users write it now: one by one, and batched.

Float32 on the CPU, eager, all threads. Both return the last iterate and the best one before it; or,
where the best is not tracked, which takes time, the start.
"""

import math

import numpy as np
import torch  # pyright: ignore[reportMissingImports]  # in the extra `bench`

from refinejax.physics.metalens.lens import LOWER, UPPER

_LOWER, _UPPER = torch.tensor(LOWER), torch.tensor(UPPER)


def channels(unit: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return (cos φ, sin φ) at normalized params of shape (..., 5); shape (..., 2, n, n)."""
    params = _LOWER + unit * (_UPPER - _LOWER)
    xc, yc, side, wavelength, focal = (p[..., None, None] for p in params.unbind(-1))
    r2 = (xc + side * u) ** 2 + (yc + side * v) ** 2
    phase = 2 * math.pi / wavelength * (r2 / (torch.sqrt(r2 + focal**2) + focal))
    return torch.stack([torch.cos(phase), torch.sin(phase)], dim=-3)


def grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return window coordinates (u along columns, v along rows)."""
    axis = torch.linspace(-0.5, 0.5, size)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return u, v


def one_by_one(
    observed: np.ndarray, starts: np.ndarray, *, rate: float, steps: int, track: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Refine each sample in a loop of its own."""
    pairs = [
        batched(o[None], s[None], rate=rate, steps=steps, track=track)
        for o, s in zip(observed, starts, strict=True)
    ]
    last, best = zip(*pairs, strict=True)
    return np.concatenate(last), np.concatenate(best)


def batched(
    observed: np.ndarray, starts: np.ndarray, *, rate: float, steps: int, track: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Refine all at once: Adam treats every param alone, so summed losses do not mix samples."""
    target, (u, v) = torch.from_numpy(observed), grid(observed.shape[-1])
    unit = torch.tensor(starts, requires_grad=True)
    optimizer = torch.optim.Adam([unit], lr=rate)
    best, lowest = unit.detach().clone(), torch.full((len(starts),), torch.inf)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = ((channels(unit, u, v) - target) ** 2).mean(dim=(1, 2, 3))
        losses.sum().backward()
        if track:
            better = losses.detach() < lowest
            lowest = torch.where(better, losses.detach(), lowest)
            best = torch.where(better[:, None], unit.detach(), best)
        optimizer.step()
    return unit.detach().numpy().copy(), best.numpy()
