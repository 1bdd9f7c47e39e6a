"""The table [task] of a predictor of lenses."""

import dataclasses

from refinejax.physics.noise import COMPONENTS

LOSSES = ("nll", "uncertainty", "mse")
PHYSICS = ("slopes", "phase")


@dataclasses.dataclass(frozen=True)
class PredictorTaskConfig:
    """The table [task] of a predictor: the simulation, its input and output, and the loss.

    Attributes:
        size: n, of the n × n maps.
        batch: maps of a step.
        validation: maps of a validation.
        wavelength: kind of predictor, see `apps.metalens.prediction`.
        features: what the network sees, see `PhaseFeatures`.
        block: pixels along each side of a block, see `PhaseFeatures`.
        members: networks in the ensemble.
        loss: "nll", the likelihood of means and variances of each map; "uncertainty", of means and
            one variance for each param; "mse", the squared error.
        beta: of "nll", see `networks.losses.gaussian_nll`.
        physics: the consistency of map and prediction, of their "slopes" or of the "phase" itself,
            see `metalens.losses`.
        physics_weight: of it, beside the loss; 0 for none.
        ramp: steps between which that is switched on, see `networks.losses.curriculum`.
        noise: components, see `physics.noise`.
        grain: its kind.
        levels: each map has all its noise times a level, drawn uniformly between these two.

    Raises:
        ValueError: names the key that does not fit.
    """

    size: int = 64
    batch: int = 128
    validation: int = 1024
    wavelength: str = "known"
    features: tuple[str, ...] = ("slopes", "curvatures")
    block: int = 8
    members: int = 1
    loss: str = "nll"
    beta: float = 0.5
    physics: str = "slopes"
    physics_weight: float = 0.0
    ramp: tuple[int, int] = (0, 10_000)
    noise: tuple[str, ...] = COMPONENTS
    grain: str = "gaussian"
    levels: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check every key that no other class checks."""
        for name in ("batch", "validation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.physics not in PHYSICS:
            raise ValueError(f"physics: expected one of {', '.join(PHYSICS)}, got {self.physics!r}")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta: expected 0 to 1, got {self.beta}")
        if not self.physics_weight >= 0:
            raise ValueError(f"physics_weight: expected 0 or more, got {self.physics_weight}")
        if not 0 <= self.levels[0] <= self.levels[1]:
            raise ValueError(f"levels: expected two numbers 0 ≤ low ≤ high, got {self.levels}")
