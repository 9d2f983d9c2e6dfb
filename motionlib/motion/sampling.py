"""Drawing head motion: resting positions, the fork's time courses, and motion as patients make it.

Ranges are in mm and degrees, and every number comes from the generator that is given::

    poses = sample_segments(4, translation_mm=(2, 4), rotation_deg=(2, 4), rng=20)
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator

from motionlib.motion.trajectory import Trajectory

KINDS = ("drift", "nod", "steps", "spikes", "partial")
Range = tuple[float, float]
SWALLOW_DECAY = 100.0  # exp(-linspace(0, 100, T)): 1/e in T/100 points (the fork's constant)


def sample_segments(
    n_positions: int = 4,
    *,
    translation_mm: Range = (2, 4),
    rotation_deg: Range = (2, 4),
    signed: bool = True,
    jitter: float = 0.3,
    rng: np.random.Generator | int,
) -> Trajectory:
    """Draw a head that rests in a few positions, one after the other.

    Parameters
    ----------
    n_positions : int, default=4
        Positions after the initial one, Nt in the paper.
    translation_mm, rotation_deg : (float, float)
        Bounds of each component's magnitude, mm and degrees.
    signed : bool, default=True
        Draw the signs too. ``False``: always positive, as in the paper's tool.
    jitter : float, default=0.3
        Each change happens at ``(j + U(-jitter, jitter)) / (n + 1)``.
    rng : Generator or int
        Source of randomness.

    Returns
    -------
    Trajectory
        ``n_positions + 1`` held poses, the first one the identity.

    Raises
    ------
    ValueError
        If a range is reversed or negative, or jitter would reorder the positions.

    Notes
    -----
    Source: paper §III-C.1 (Nt = 4); TorchIO 1.2.1 ``RandomMotion`` for times and ranges. Departs
    from the paper: signs are drawn by default; always the same octant is a learnable cue.
    """
    rng = np.random.default_rng(rng)
    ranges = _check_ranges(translation_mm, rotation_deg)
    if n_positions < 1:
        raise ValueError(f"n_positions is {n_positions}; at least one position is needed.")
    if not 0 <= jitter < 0.5:
        raise ValueError(f"jitter is {jitter}; keep it in [0, 0.5) so that the order is kept.")
    angles, shifts = (_components(rng, n_positions, bounds, signed) for bounds in ranges[::-1])
    offsets = rng.uniform(-jitter, jitter, n_positions)
    times = (np.arange(1, n_positions + 1) + offsets) / (n_positions + 1)
    return Trajectory(*(np.insert(a, 0, 0, axis=0) for a in (times, shifts, angles)), "hold")


def sample_time_course(
    n_times: int = 200,
    *,
    translation_mm: Range = (2, 4),
    rotation_deg: Range = (2, 4),
    reading: Literal["pairwise", "peak_to_peak"] = "pairwise",
    noise_base: Range = (5, 15),
    swallow_count: tuple[int, int] = (0, 5),
    swallow_magnitude: Range = (2, 6),
    sudden_count: tuple[int, int] = (0, 5),
    sudden_magnitude: Range = (2, 6),
    drift_magnitude: Range = (2, 5),
    rng: np.random.Generator | int,
) -> Trajectory:
    """Draw a continuous course: drift, swallows and sudden steps.

    Parameters
    ----------
    n_times : int, default=200
        Points of the course, nT in the paper.
    translation_mm, rotation_deg : (float, float)
        The severity, in mm and degrees.
    reading : {"pairwise", "peak_to_peak"}
        ``pairwise``: the whole course is scaled so that its two most distant positions lie a value
        drawn from the range apart. ``peak_to_peak``: the range is the drift's peak-to-peak per
        component; swallows and steps come on top, unscaled.
    noise_base : (float, float)
        Range of the number of octaves of the drift.
    swallow_count, sudden_count : (int, int)
        Numbers of events, upper bound excluded; ``(0, 1)`` means none.
    swallow_magnitude, sudden_magnitude, drift_magnitude : (float, float)
        Sizes of events in mm and degrees, before any scaling, and of the drift against the events
        in the ``pairwise`` reading.
    rng : Generator or int
        Source of randomness.

    Returns
    -------
    Trajectory
        `n_times` gliding poses.

    Raises
    ------
    ValueError
        If a range is reversed, or `reading` is unknown.

    Notes
    -----
    Source: paper §III-C.1 (nT = 200); romainVala/torchio@02aeb2b8 ``RandomMotionFromTimeCourse``.
    The paper's ranges have two readings: the first author's code passes them as the pairwise bound,
    which is the default here; the article does not say.
    """
    rng = np.random.default_rng(rng)
    ranges = _check_ranges(translation_mm, rotation_deg)
    if reading not in ("pairwise", "peak_to_peak"):
        raise ValueError(f"reading is {reading!r}; use 'pairwise' or 'peak_to_peak'.")
    for name, count in (("swallow_count", swallow_count), ("sudden_count", sudden_count)):
        if not 0 <= count[0] < count[1]:
            raise ValueError(f"{name} is {count}; give (low, high), high excluded; (0, 1): none.")
    if n_times < 4:
        raise ValueError(f"n_times is {n_times}; a course needs at least 4 points.")
    # 1. how large: one number for the translations, one for the rotations
    sizes = [rng.uniform(*bounds) for bounds in ranges]
    # 2. a slow drift of all six components
    drifts = sizes if reading == "peak_to_peak" else rng.uniform(*drift_magnitude, size=2)
    course = np.concatenate(
        [drift(n_times, size, rng=rng, noise_base=noise_base) for size in drifts], axis=1
    )
    # 3. impulses that return, and steps that last
    course += swallows(n_times, int(rng.integers(*swallow_count)), swallow_magnitude, rng=rng)
    course += sudden_steps(n_times, int(rng.integers(*sudden_count)), sudden_magnitude, rng=rng)
    # 4. the range, where it bounds the whole course
    shifts, angles = course[:, :3], course[:, 3:]
    if reading == "pairwise":
        shifts, angles = (
            _scale_pairwise(c, size) for c, size in zip((shifts, angles), sizes, strict=True)
        )
    return Trajectory(np.linspace(0, 1, n_times), shifts, angles, interpolation="linear")


def sample_realistic(
    *,
    translation_mm: Range = (0.2, 3),
    rotation_deg: Range = (0.2, 3),
    n_moves: tuple[int, int] = (1, 6),
    rng: np.random.Generator | int,
    kind: str | Sequence[str] | None = None,
    n_times: int = 200,
) -> Trajectory:
    """Draw motion as patients make it: signed, from sub-millimetre up, one to many moves.

    Parameters
    ----------
    translation_mm, rotation_deg : (float, float)
        The largest distance between two poses of the scan, drawn log-uniformly, mm and degrees.
    n_moves : (int, int)
        Least and greatest number of moves of the kinds that come in numbers.
    rng, n_times
        As for `sample_time_course`.
    kind : str or sequence of str, optional
        ``drift`` (slow sag), ``nod`` (pitch to and fro), ``steps`` (new resting positions),
        ``spikes`` (coughs that return), ``partial`` (only part of the scan is hit). Default: one to
        three of them at random.

    Returns
    -------
    Trajectory
        `n_times` gliding poses, the first one the identity.

    Raises
    ------
    ValueError
        If a kind is unknown, or a range is reversed or does not start above zero.

    Notes
    -----
    Source: shifts mainly anterior-posterior, turns mainly nods (Schilling; 16,995 visits). Departs
    from the paper: its 2-8 mm lie far above the 0.5 mm at which readers reject scans.
    """
    rng = np.random.default_rng(rng)
    ranges = _check_ranges(translation_mm, rotation_deg)
    if min(low for low, _ in ranges) <= 0:
        raise ValueError("Realistic ranges must start above 0 (drawn log-uniformly); try 0.2.")
    if not 1 <= n_moves[0] <= n_moves[1]:
        raise ValueError(f"n_moves is {n_moves}; give (least, greatest) with least >= 1.")
    if kind is None:
        kinds = list(rng.choice(KINDS, size=rng.integers(1, 4), replace=False))
    else:
        kinds = [kind] if isinstance(kind, str) else list(kind)
    if not kinds or (unknown := sorted(set(kinds) - set(KINDS))):
        raise ValueError(f"Unknown kind of motion {unknown or kinds}; use {', '.join(KINDS)}.")
    moments = np.linspace(0, 1, n_times)
    course = np.zeros((n_times, 6))
    # 1. every kind adds its moves, scaled to a share of its own
    shapes = [name for name in kinds if name != "partial"] or ["steps"]
    for name in shapes:
        part = np.zeros_like(course)
        for _ in range(1 if name == "drift" else int(rng.integers(n_moves[0], n_moves[1] + 1))):
            part += _event(name, moments, rng)[:, None] * _direction(name, rng)
        course += part / max(np.abs(part).max(), 1e-9) * rng.uniform(0.3, 1.0)
    # 2. the scan begins at rest, and may be hit in one part only
    if "partial" in kinds:
        course *= _window(moments, rng)[:, None]
    course -= course[0]
    # 3. the largest distance of two poses, log-uniform: small motion is common
    sizes = [np.exp(rng.uniform(*np.log(bounds))) for bounds in ranges]
    shifts, angles = (
        _scale_pairwise(c, size)
        for c, size in zip((course[:, :3], course[:, 3:]), sizes, strict=True)
    )
    return Trajectory(moments, shifts, angles, interpolation="linear")


def _components(rng: np.random.Generator, n: int, bounds: Range, signed: bool) -> np.ndarray:
    """Magnitudes within bounds, with random signs if asked, shape (n, 3)."""
    values = rng.uniform(*bounds, size=(n, 3))
    return values * rng.choice([-1.0, 1.0], size=(n, 3)) if signed else values


def _check_ranges(translation_mm: Range, rotation_deg: Range) -> list[Range]:
    """Return both ranges as floats, or say what is wrong with them."""
    ranges = {"translation_mm": translation_mm, "rotation_deg": rotation_deg}
    for name, bounds in ranges.items():
        if len(bounds) != 2 or not np.isfinite(bounds).all() or not 0 <= bounds[0] <= bounds[1]:
            raise ValueError(f"{name} is {tuple(bounds)}; give (low, high) with 0 <= low <= high.")
    return [(float(low), float(high)) for low, high in ranges.values()]


def drift(
    n_times: int, size: float, *, rng: np.random.Generator, noise_base: Range = (5, 15)
) -> np.ndarray:
    """Perlin-like drift of three components, each with peak-to-peak `size`; shape (n_times, 3).

    Octaves of random knots, each with half as many knots and twice the height of the one before.
    """
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


def _event(name: str, moments: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One move over time, shape (T,), height about 1; a step where nothing else is named."""
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


def _direction(name: str, rng: np.random.Generator) -> np.ndarray:
    """Signed sizes of the six components: mainly A-P and S-I shift, mainly nod."""
    weights = np.array([0.3, 1.0, 0.7, 1.0, 0.3, 0.4])
    if name == "nod":
        weights = np.array([0.05, 0.4, 0.4, 1.0, 0.1, 0.1])
    return weights * rng.normal(size=6)


def _window(moments: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gate that lets motion through in one part of the scan only, with short ramps."""
    length = rng.uniform(0.1, 0.5)
    start = rng.uniform(0.02, 0.98 - length)
    inside = np.minimum(moments - start, start + length - moments)
    return np.clip(inside / 0.02, 0.0, 1.0)


def _scale_pairwise(course: np.ndarray, size: float) -> np.ndarray:
    """Scale a course (T, 3) so that its two most distant points lie `size` apart."""
    distance = np.linalg.norm(course[:, None] - course[None], axis=-1).max()
    return course * (size / distance) if distance > 0 else course
