"""Corrupt one NIfTI image with motion and write the trajectory beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib simulate``."""
    parser.add_argument("input", metavar="IN", help="3-D NIfTI image, .nii or .nii.gz")
    parser.add_argument("output", metavar="OUT", help="name of the corrupted image")
    parser.add_argument("--method", choices=("image", "kspace"), default="image")
    for option, unit in (("--translation-mm", "mm"), ("--rotation-deg", "degrees")):
        parser.add_argument(
            option,
            nargs=2,
            type=float,
            default=(2.0, 4.0),
            metavar=("LO", "HI"),
            help=f"range of the motion in {unit} (default: 2 4)",
        )
    parser.add_argument(
        "--axis",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="phase encoding: 0 right-left, 1 anterior-posterior (default), 2 superior-inferior",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--positions", type=int, default=4, metavar="N", help="positions of method image"
    )
    parser.add_argument(
        "--points", type=int, default=200, metavar="N", help="points of method kspace"
    )
    parser.add_argument("--positive", action="store_true", help="positive components only (image)")
    parser.add_argument(
        "--realistic", action="store_true", help="drift, nods, steps, coughs instead of the paper's"
    )
    parser.add_argument(
        "--part",
        choices=("magnitude", "real"),
        default="magnitude",
        help="magnitude as a scanner (default) or real part as TorchIO",
    )
    parser.add_argument(
        "--trajectory", metavar="FILE", help="replay the trajectory of such a JSON file"
    )


def main(args: argparse.Namespace) -> int:
    """Simulate; 0 done. Faults of the call or of the image are errors of one sentence."""
    import torch

    from motionlib.files import atomic, sha256_file, write_json
    from motionlib.simulate import image_motion, kspace_motion
    from motionlib.trajectories import displacement

    source, target = Path(args.input), Path(args.output)
    _check_names(source, target)
    image, values = _read(source)
    trajectory = _trajectory(args)
    axis = _array_axis(image.affine, args.axis)
    simulate = image_motion if args.method == "image" else kspace_motion
    moved = simulate(
        torch.from_numpy(values), trajectory, affine=image.affine, axis=axis, output=args.part
    ).numpy()
    content = _like(image, moved).to_bytes()
    if target.name.endswith(".gz"):
        from isal import igzip

        content = igzip.compress(content, compresslevel=1, mtime=0)
    with atomic(target) as aside:
        aside.write_bytes(content)
    record: dict[str, Any] = {
        **trajectory.to_dict(),
        "method": args.method,
        "seed": None if args.trajectory else args.seed,
        "translation_range_mm": None if args.trajectory else list(args.translation_mm),
        "rotation_range_deg": None if args.trajectory else list(args.rotation_deg),
        "phase_encoding_axis": "RAS"[args.axis],
        "array_axis": axis,
        "part": args.part,
        "severity": displacement(trajectory) if trajectory.frame == "ras" else None,
        "input": source.name,
        "input_sha256": sha256_file(source),
    }
    write_json(_beside(target), record)
    return 0


def _check_names(source: Path, target: Path) -> None:
    """Refuse what cannot be read or written."""
    if not source.is_file():
        raise FileNotFoundError(f"There is no file {source}; give a NIfTI image.")
    if not target.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"OUT is {target.name}; its name must end in .nii or .nii.gz.")
    if target.resolve() == source.resolve():
        raise ValueError("IN and OUT are the same file; choose another name for OUT.")


def _beside(target: Path) -> Path:
    """Name of the JSON file beside an image."""
    return target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def _read(source: Path):
    """Return the image and its values, float32 (I, J, K)."""
    import nibabel as nib

    try:
        image = nib.load(source)
        values = np.asarray(image.dataobj, dtype=np.float32)
    except (nib.filebasedimages.ImageFileError, EOFError, OSError) as fault:
        raise ValueError(f"{source.name} cannot be read as an image ({fault}).") from fault
    if not isinstance(image, nib.Nifti1Image):
        raise ValueError(f"{source.name} is {type(image).__name__}; convert it to NIfTI first.")
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError(f"{source.name} has shape {image.shape}; give one 3-D scan.")
    return image, np.ascontiguousarray(values)


def _like(image: Any, values: np.ndarray) -> Any:
    """Return an image with the header, affine, type on disk and scaling of `image`."""
    header = image.header.copy()
    dtype = header.get_data_dtype()
    slope, inter = (image.dataobj.slope, image.dataobj.inter)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        raw = np.clip(np.rint((values.astype(np.float64) - inter) / slope), limits.min, limits.max)
    else:
        raw = (values - inter) / slope
    moved = type(image)(raw.astype(dtype).reshape(image.shape), image.affine, header)
    moved.header.set_slope_inter(slope, inter)
    return moved


def _array_axis(affine: np.ndarray, ras_axis: int) -> int:
    """Array axis that runs closest to an anatomical axis."""
    import nibabel as nib

    return int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == ras_axis)[0])


def _trajectory(args: argparse.Namespace):
    """Draw, or read, the motion."""
    from motionlib.files import read_json
    from motionlib.trajectories import (
        Trajectory,
        sample_realistic,
        sample_segments,
        sample_time_course,
    )

    if args.trajectory:
        return Trajectory.from_dict(read_json(args.trajectory))
    ranges = {
        "translation_mm": tuple(args.translation_mm),
        "rotation_deg": tuple(args.rotation_deg),
    }
    if args.realistic:
        return sample_realistic(**ranges, rng=args.seed)
    if args.method == "image":
        return sample_segments(args.positions, **ranges, signed=not args.positive, rng=args.seed)
    return sample_time_course(args.points, **ranges, rng=args.seed)
