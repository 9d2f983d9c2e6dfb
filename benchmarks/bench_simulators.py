"""A head comes in; CPU-seconds of our simulators beside TorchIO 1.2.1, in one process, go out.

Contestants take turns, round after round, so that a busy machine slows all alike. CPU-seconds
count every thread; wall time is given for completeness. The TorchIO fork is not installed here: its
recorded ratio to TorchIO on one machine is applied, and marked as such.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib.files import write_json, write_table
from motionlib.motion.image_based import image_motion
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.sampling import sample_segments, sample_time_course
from motionlib.preprocess.grid import centre_on_grid, study_grid
from motionlib.preprocess.images import load_volume, phantom

# Recorded on 2 vCPU: TorchIO n = 4 2.89 CPU-s; fork 10.26 (no padding), 39.6 (its default).
FORK_TO_TORCHIO = {"fork, no padding": 10.26 / 2.89, "fork, default": 39.6 / 2.89}
PAPER_SECONDS = {4: 3.12, 16: 8.93, 128: 63.25}
TORCHIO = {"axis": 2, "center": "world", "direction": "pull", "output": "real"}


def head(spacing_mm: float) -> tuple[torch.Tensor, np.ndarray, str]:
    """A real head of ds000011 on the study's grid, else a phantom; with its name."""
    grid = study_grid(spacing_mm)
    root = os.environ.get("MOTIONLIB_DATA")
    scan = Path(root or ".") / "ds000011" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    if root and scan.exists():
        volume, affine = load_volume(scan)
        array = np.clip(np.asarray(centre_on_grid(volume, affine, grid)), 0, None)
        return torch.from_numpy(array)[None].float().contiguous(), grid.matrix, "ds000011 sub-01"
    return phantom(grid.shape), grid.matrix, "phantom"


def movements(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, shifts and angles as TorchIO's ``Motion`` takes them."""
    drawn = sample_segments(n, signed=False, rng=seed)
    return drawn.times[1:], drawn.translation_mm[1:], drawn.rotation_deg[1:]


def contestants(volume: torch.Tensor, affine: np.ndarray, *, peer_up_to: int) -> dict:
    """Label and call of everything that is timed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchio as tio
    from motionlib.motion.trajectory import Trajectory

    subject = tio.Subject(im=tio.ScalarImage(tensor=volume, affine=affine))
    calls = {}
    for n in [n for n in (4, 16, 128) if n < volume.shape[3]]:
        times, shifts, angles = movements(n)
        if n <= peer_up_to:
            peer = tio.Motion(
                degrees=angles, translation=shifts, times=times, image_interpolation="linear"
            )
            calls["TorchIO Motion", n] = lambda peer=peer: peer(subject)["im"].data
        course = Trajectory.from_torchio(times, shifts, angles)
        calls["image_motion, real", n] = lambda course=course: image_motion(
            volume, course, affine=affine, **TORCHIO
        )
        if n == 4:
            calls["image_motion, magnitude", n] = lambda course=course: image_motion(
                volume, course, affine=affine, axis=1
            )
    course = sample_time_course(200, rng=0)
    for label, options in (
        ("kspace_motion, no padding", {"pad_vox": 0}),
        ("kspace_motion, default", {}),
        ("kspace_motion, no padding, eps 1e-5", {"pad_vox": 0, "eps": 1e-5}),
    ):
        calls[label, 200] = lambda options=options: kspace_motion(
            volume, course, affine=affine, axis=1, **options
        )
    return calls


def resamplers(volume: torch.Tensor, affine: np.ndarray) -> dict:
    """One pose by each resampler: why numba is the one for CPUs."""
    import SimpleITK as sitk  # noqa: N813

    from motionlib.motion.resampling import _pull_torch, pull_trilinear, sampling_maps

    matrix = sampling_maps(
        np.array([[3.0, -2.0, 1.0]]), np.array([[3.0, 2.0, -4.0]]), affine, volume.shape[1:]
    )[0]
    grid, out = volume[0], torch.empty_like(volume[0])
    image = sitk.GetImageFromArray(grid.numpy().T)
    motion = sitk.AffineTransform(3)
    motion.SetMatrix(matrix[:3, :3].flatten().tolist())
    motion.SetTranslation(matrix[:3, 3].tolist())

    def by_sitk():
        moved = sitk.Resample(image, image, motion, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        return torch.from_numpy(np.ascontiguousarray(sitk.GetArrayFromImage(moved).T))

    return {
        ("one pose, SimpleITK", 1): by_sitk,
        ("one pose, numba", 1): lambda: pull_trilinear(grid, matrix, fill=0.0, out=out),
        ("one pose, grid_sample", 1): lambda: _pull_torch(grid, matrix, 0.0, out, None),
    }


def measure(calls: dict, rounds: int, slow_rounds: int) -> tuple[dict, dict]:
    """CPU and wall seconds of every call, turn by turn, and the last results."""
    seconds = {key: [] for key in calls}
    results = {}
    for turn in range(rounds + 1):  # the first turn compiles and plans; it is not counted
        for key, call in calls.items():
            if turn and key[1] > 16 and key[1] != 200 and turn > slow_rounds:
                continue
            if not turn and key[1] == 128:
                continue
            cpu, wall = time.process_time(), time.perf_counter()
            results[key] = call()
            if turn:
                seconds[key].append((time.process_time() - cpu, time.perf_counter() - wall))
        print(f"round {turn} of {rounds}", flush=True)
    return seconds, results


def peak_volumes(volume: torch.Tensor, affine: np.ndarray, n: int) -> float:
    """Peak memory of one call beyond the input, in volumes, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "head.npz", volume=volume.numpy(), affine=affine)
        words = [sys.executable, __file__, "--peak", str(n), "--head", f"{folder}/head.npz"]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return float(said.split()[-1])


def resident_kib(field: str) -> float:
    """Memory of this process in KiB, from Linux's process table; NaN elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(field)), np.nan)


def report_peak(path: str, n: int) -> None:
    """Print the peak of one magnitude call (real needs less), after a small one loaded everything.

    An upper bound: the highest resident size of this process less its size before the call.
    ``ru_maxrss`` would not do, since a child starts with its parent's.
    """
    stored = np.load(path)
    volume, affine = torch.from_numpy(stored["volume"]), stored["affine"]
    course = sample_segments(n, rng=0)
    small = volume[:, ::4, ::4].contiguous()
    image_motion(small, course, affine=affine, axis=2)
    before = resident_kib("VmRSS")
    image_motion(volume, course, affine=affine, axis=2)
    print((resident_kib("VmHWM") - before) * 1024 / (volume.numel() * 4))


def table_of(seconds: dict, results: dict, peaks: dict) -> pd.DataFrame:
    """One row per contestant: median seconds, ratio to TorchIO, distance to its result."""
    medians = {k: np.median(np.array(v), axis=0) for k, v in seconds.items() if v}
    rows = []
    for (label, n), (cpu, wall) in medians.items():
        peer = medians.get(("TorchIO Motion", n))
        row = {"what": label, "n": n, "cpu_s": cpu, "wall_s": wall, "source": "measured"}
        if peer is not None and "real" in label:
            row["times_faster_cpu"], row["times_faster_wall"] = peer[0] / cpu, peer[1] / wall
            theirs = results["TorchIO Motion", n].double()
            difference = results[label, n].double() - theirs
            row["relative_l2"] = float(difference.norm() / theirs.norm())
        row["paper_s"] = PAPER_SECONDS.get(n)
        row["peak_volumes"] = peaks.get((label, n))
        rows.append(row)
    ours = {label: cpu for (label, _), (cpu, _) in medians.items() if label.startswith("kspace")}
    for label, ratio in FORK_TO_TORCHIO.items():
        cpu = medians["TorchIO Motion", 4][0] * ratio
        own = ours["kspace_motion, " + label.removeprefix("fork, ")]
        rows.append(
            {
                "what": label,
                "n": 200,
                "cpu_s": cpu,
                "times_faster_cpu": cpu / own,  # how much faster ours is
                "source": "recorded ratio to TorchIO n = 4, not measured",
            }
        )
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> int:
    """Measure and write ``simulators.csv`` and ``simulators.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of n = 128")
    parser.add_argument("--spacing-mm", type=float, default=1.0, help="1.0: 169x208x179")
    parser.add_argument("--peer-up-to", type=int, default=16, help="TorchIO's largest n")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--head", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.peak:
        report_peak(args.head, args.peak)
        return 0
    volume, affine, name = head(args.spacing_mm)
    calls = {
        **resamplers(volume, affine),
        **contestants(volume, affine, peer_up_to=args.peer_up_to),
    }
    seconds, results = measure(calls, args.rounds, args.slow_rounds)
    peaks = {
        key: peak_volumes(volume, affine, key[1])
        for key in (("image_motion, magnitude", 4), ("image_motion, real", 128))
        if key in calls
    }
    table = table_of(seconds, results, peaks)
    print(table.round(3).to_string(index=False))
    write_table(table.round(9), Path(args.out) / "simulators.csv")
    names = ("torch", "torchio", "SimpleITK", "finufft", "numba", "numpy")
    about = {
        "head": name,
        "shape": list(volume.shape[1:]),
        "rounds": args.rounds,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {n: version(n) for n in names} | {"python": platform.python_version()},
    }
    write_json(Path(args.out) / "simulators.json", about)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
