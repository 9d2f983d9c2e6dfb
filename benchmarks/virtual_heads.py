"""What still betrays a virtual head beside a real one: outline, ventricles, grey levels, air.

Still research heads of the virtual cohort and IXI heads without a vote, both at 2 mm on the study
grid; every measure as mean and spread over heads, and the distance of the means in pooled standard
deviations. Needs MOTIONLIB_DATA::

    python benchmarks/virtual_heads.py --heads 40
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import ConvexHull

from motionlib.cohorts import read_cohort
from motionlib.cohorts.virtual import make_cohort
from motionlib.files import write_table
from motionlib.preprocess.grid import centre_on_grid, study_grid
from motionlib.preprocess.images import load_volume

GRID = study_grid(2.0)
LEVELS = (5, 25, 50, 75, 95)


def main() -> None:
    """Measure both kinds of heads and write ``benchmarks/results/virtual_heads.csv``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--heads", type=int, default=40)
    parser.add_argument("--out", default="benchmarks/results/virtual_heads.csv")
    args = parser.parse_args()
    selection = read_cohort("ixi", Path(os.environ["MOTIONLIB_DATA"]) / "ixi-2mm")
    ixi = selection.manifest
    ixi = ixi[ixi["motion_votes"].fillna(0) == 0].sort_values("scan_id")[: args.heads]
    with tempfile.TemporaryDirectory() as folder:
        counts = (args.heads // 2, args.heads - args.heads // 2, 0)
        virtual, _ = make_cohort(
            folder, n_research=counts, n_real_motion=0, n_warehouse=0, spacing_mm=2.0
        )
        virtual = virtual.drop_duplicates("participant_id")[: args.heads]
        kinds = {
            "virtual": [measure(Path(folder) / path) for path in virtual["path"]],
            "IXI": [measure(selection.root / path) for path in ixi["path"]],
        }
    table = compare(*(pd.DataFrame(rows) for rows in kinds.values()))
    write_table(table.round(4), args.out)
    print(table.round(3).to_string(index=False))


def measure(path: Path) -> dict[str, float]:
    """Describe one head by a few numbers."""
    volume = np.clip(centre_on_grid(*load_volume(path), GRID), 0, None)
    head = _head(volume)
    inside = volume / np.median(volume[head])
    row = {}
    # 1. the outline, on axial slices above the orbits, where no face disturbs it
    top = np.flatnonzero(head.any(axis=(0, 1))).max()
    slices = [head[:, :, k] for k in range(top - 45, top - 14, 5)]  # 30 to 90 mm below the crown
    row["outline, area / convex area"] = np.mean([_solidity(one) for one in slices])
    row["outline, bumps (SD of the radius / radius)"] = np.mean([_curvature(one) for one in slices])
    # 2. the middle of the brain: what is dark there are ventricles
    middle = [round(c) for c in ndimage.center_of_mass(head[:, :, top - 60 :])]
    i, j, k = middle[0], middle[1], top - 60 + middle[2]
    deep = inside[i - 10 : i + 10, j - 20 : j + 20, k - 8 : k + 12]
    dark = deep < 0.5 * np.percentile(deep, 75)
    row["ventricles, dark share of the deep brain"] = float(dark.mean())
    # 3. grey levels of head and air, by the median of the head
    for level in LEVELS:
        row[f"head, {level} % of its grey levels"] = float(np.percentile(inside[head], level))
    air = ~ndimage.binary_dilation(head, iterations=3)
    near = ndimage.binary_dilation(head, iterations=10) & air
    row["air beside the head, mean"] = float(inside[near].mean())
    row["air beside the head, SD"] = float(inside[near].std())
    row["air, share of exact zeros"] = float((volume[air] == 0).mean())
    # 4. sharpness: gradient inside the head
    gradient = np.sqrt(sum(np.square(g) for g in np.gradient(inside)))
    core = ndimage.binary_erosion(head, iterations=6)
    row["brain, mean gradient (1/voxel)"] = float(gradient[core].mean())
    return row


def _head(volume: np.ndarray) -> np.ndarray:
    """Largest bright component, closed and filled."""
    rough = volume > 0.12 * np.percentile(volume, 98)
    labels, n = ndimage.label(rough)
    if n > 1:
        rough = labels == 1 + np.argmax(ndimage.sum(rough, labels, range(1, n + 1)))
    closed = ndimage.binary_closing(rough, iterations=3)
    return ndimage.binary_fill_holes(closed)


def _solidity(mask: np.ndarray) -> float:
    """Area of a slice's mask by that of its convex hull."""
    corners = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)])
    points = (np.argwhere(mask)[:, None] + corners).reshape(-1, 2)
    return float(mask.sum() / ConvexHull(points).volume)


def _curvature(mask: np.ndarray) -> float:
    """Spread of the radius' bend round the outline: dents and bumps, not the oval."""
    centre = np.argwhere(mask).mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    steps = np.arange(0, 80, 0.25)
    rays = centre[:, None, None] + np.array([np.cos(angles), np.sin(angles)])[:, :, None] * steps
    seen = ndimage.map_coordinates(mask.astype(np.float32), rays, order=1)
    radius = seen.sum(axis=1) * 0.25
    spectrum = np.fft.rfft(radius)
    spectrum[:5] = 0  # circle, shift, oval and its skew
    spectrum[30:] = 0  # voxels
    return float(np.fft.irfft(spectrum).std() / radius.mean())


def compare(virtual: pd.DataFrame, real: pd.DataFrame) -> pd.DataFrame:
    """Set two kinds of heads side by side, a row a measure."""
    pooled = np.sqrt((virtual.var() + real.var()) / 2)
    table = pd.DataFrame(
        {
            "virtual": virtual.mean(),
            "virtual_sd": virtual.std(),
            "ixi": real.mean(),
            "ixi_sd": real.std(),
            "distance_sd": (virtual.mean() - real.mean()) / pooled,
        }
    )
    table = table.rename_axis("measure").reset_index()
    return table.assign(n_virtual=len(virtual), n_ixi=len(real))


if __name__ == "__main__":
    main()
