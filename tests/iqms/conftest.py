"""A head for the measures of image quality."""

import numpy as np
import pytest


@pytest.fixture
def head(rng) -> np.ndarray:
    """A noisy ellipsoid with structure, float32, shape (24, 28, 24), air all around."""
    grid = np.indices((24, 28, 24)) - np.array([11.5, 13.5, 11.5])[:, None, None, None]
    radius = np.sqrt((grid**2 / np.array([64, 90, 64])[:, None, None, None]).sum(axis=0))
    clean = np.where(radius < 1, 400 + 200 * np.cos(6 * radius), 0)
    noise = rng.normal(0, 10, (2, *clean.shape))
    return np.hypot(clean + noise[0], noise[1]).astype(np.float32)
