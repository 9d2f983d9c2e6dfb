"""A study's choices go in; what one training may spend, and where, comes out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def default_device() -> str:
    """Device that ``MOTIONLIB_DEVICE`` names, else ``cpu``."""
    return os.environ.get("MOTIONLIB_DEVICE", "cpu")


@dataclass(frozen=True)
class Budget:
    """What one training may spend.

    Attributes
    ----------
    epochs : int
        Passes over the training scans.
    n_folds : int
        Folds trained.
    learning_rate : float
        Adam's step; the paper has 1e-4.
    batch_size : int
        The paper has 16.
    engine : str
        Where trainings run.
    device : str
        ``cpu`` or ``cuda``; the default is what MOTIONLIB_DEVICE says, else ``cpu``.
    """

    epochs: int
    n_folds: int
    learning_rate: float = 1e-4  # §III-C.2
    batch_size: int = 16  # §III-C.2
    engine: str = "inline"
    device: str = field(default_factory=default_device)

    @property
    def precision(self) -> str:
        """``bf16`` on a GPU, where it is the fast way, else ``float32``."""
        return "bf16" if self.device.startswith("cuda") else "float32"
