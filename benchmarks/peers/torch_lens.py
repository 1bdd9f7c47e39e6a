"""Adam in PyTorch for the lens of `benchmarks.lens`, one map after the other, as users write it."""

import math

import numpy as np
import torch  # pyright: ignore[reportMissingImports]  # in the extra `bench`

from benchmarks.lens import LOWER, SIDE, SIZE, SOLVED, WAVELENGTH, WIDTH, Maps

STEPS = 300
_ENOUGH = SOLVED**2 / 4  # of the mean over two channels: half of what would do
_LOWER, _WIDTH = (torch.tensor(side, dtype=torch.float32) for side in (LOWER, WIDTH))
_AXIS = torch.linspace(-SIDE / 2, SIDE / 2, SIZE)


def channels(unit: torch.Tensor) -> torch.Tensor:
    """Return (cos φ, sin φ) at params in units of their ranges; shape (2, n, n)."""
    xc, yc, focal = _LOWER + unit * _WIDTH
    r2 = (xc + _AXIS[None, :]) ** 2 + (yc + _AXIS[:, None]) ** 2
    phase = 2 * math.pi / WAVELENGTH * (r2 / (torch.sqrt(r2 + focal**2) + focal))
    return torch.stack([torch.cos(phase), torch.sin(phase)])


def adam(maps: Maps, rate: float) -> np.ndarray:
    """Return lenses after at most 300 steps each; one that is solved stops."""
    lenses = []
    for turns, start in zip(maps.turns, maps.starts, strict=True):
        observed = 2 * math.pi * torch.from_numpy(turns)
        target = torch.stack([torch.cos(observed), torch.sin(observed)])
        unit = torch.tensor((start - LOWER) / WIDTH, dtype=torch.float32, requires_grad=True)
        optimizer = torch.optim.Adam([unit], lr=rate)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = ((channels(unit) - target) ** 2).mean()
            if loss.item() <= _ENOUGH:
                break
            loss.backward()
            optimizer.step()
        lenses.append(LOWER + WIDTH * unit.detach().numpy())
    return np.array(lenses)
