"""Sizes of events go in; single components of head motion over time come out."""

from __future__ import annotations

import numpy as np

Range = tuple[float, float]
SWALLOW_DECAY = 100.0  # exp(-linspace(0, 100, T)): 1/e in T/100 points (the fork's constant)


def drift(
    n_times: int, size: float, *, rng: np.random.Generator, noise_base: Range = (5, 15)
) -> np.ndarray:
    """Perlin-like drift of three components, each with peak-to-peak `size`; shape (n_times, 3)."""
    from scipy.interpolate import PchipInterpolator

    moments = np.arange(n_times)
    n_octaves = np.rint(rng.uniform(*noise_base, size=3)).astype(int)
    total = np.zeros((n_times, 3))
    for octave in range(n_octaves.max()):
        n_knots = round(n_times / 2**octave)
        if n_knots > 1:
            knots = np.linspace(0, n_times - 1, n_knots)
            curve = PchipInterpolator(knots, rng.uniform(size=(n_knots, 3)))(moments)
            total += 2**octave * curve * (octave < n_octaves)
    spread = np.ptp(total, axis=0)
    return np.where(spread > 0, (total - total.min(0)) / np.maximum(spread, 1e-12) - 0.5, 0) * size


def swallows(n_times: int, count: int, magnitude: Range, *, rng: np.random.Generator) -> np.ndarray:
    """Impulses in superior shift and in pitch (about right-left), positive; shape (n_times, 6)."""
    course = np.zeros((n_times, 6))
    impulse = np.exp(-np.linspace(0, SWALLOW_DECAY, n_times))
    if count:
        starts = (rng.uniform(size=count) * n_times).astype(int)
        trace = sum(np.roll(impulse, start) for start in starts)
        course[:, 2] = trace * rng.uniform(*magnitude)
        course[:, 3] = trace * rng.uniform(*magnitude)
    return course


def sudden_steps(
    n_times: int, count: int, magnitude: Range, *, rng: np.random.Generator
) -> np.ndarray:
    """Lasting jumps of all six components that add up, signed; shape (n_times, 6)."""
    course = np.zeros((n_times, 6))
    for _ in range(count):
        start = int(rng.integers(1, n_times))  # the fork may place the step after the end: no step
        sizes = np.repeat(rng.uniform(*magnitude, size=2), 3)
        course[start:] += sizes * rng.uniform(-1, 1, size=6)
    return course


def event(name: str, moments: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One move over time, shape (T,), height about 1."""
    start = rng.uniform(0.03, 0.95)
    if name == "drift":
        return moments ** rng.uniform(0.5, 2.0)
    if name == "nod":
        width = rng.uniform(0.02, 0.15)
        swing = np.cos(rng.uniform(2, 8) * (moments - start) / width)
        return np.exp(-0.5 * ((moments - start) / width) ** 2) * swing
    if name == "spikes":
        width = rng.uniform(0.005, 0.02)
        return np.exp(-np.abs(moments - start) / width)
    return 1.0 * (moments >= start)


def direction(name: str, rng: np.random.Generator) -> np.ndarray:
    """Signed sizes of the six components: mainly A-P and S-I shift, mainly nod."""
    weights = np.array([0.3, 1.0, 0.7, 1.0, 0.3, 0.4])
    if name == "nod":
        weights = np.array([0.05, 0.4, 0.4, 1.0, 0.1, 0.1])
    return weights * rng.normal(size=6)


def window(moments: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gate that lets motion through in one part of the scan only, with short ramps."""
    length = rng.uniform(0.1, 0.5)
    start = rng.uniform(0.02, 0.98 - length)
    inside = np.minimum(moments - start, start + length - moments)
    return np.clip(inside / 0.02, 0.0, 1.0)


def scale_pairwise(course: np.ndarray, size: float) -> np.ndarray:
    """Scale a course (T, 3) so that its two most distant points lie `size` apart."""
    distance = np.linalg.norm(course[:, None] - course[None], axis=-1).max()
    return course * (size / distance) if distance > 0 else course
