"""Command ``simulate``: move one NIfTI image, or all of a manifest, and say how."""

import argparse
from pathlib import Path

from motionlib.commands import add_engine, say, tell_outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib simulate``."""
    parser.add_argument("input", metavar="IN", help="3-D NIfTI image, manifest (.tsv), or folder")
    parser.add_argument("output", metavar="OUT", help="corrupted image, or a folder for many")
    parser.add_argument(
        "--method",
        choices=("image", "kspace"),
        default="image",
        help="image (default): the head in a few poses; kspace: a pose for every line",
    )
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
        "--positions", type=int, default=4, metavar="N", help="of method image (default: 4)"
    )
    parser.add_argument(
        "--points", type=int, default=200, metavar="N", help="of method kspace (default: 200)"
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
    parser.add_argument(
        "--assume-orientation", metavar="RAS", help="where the axes lead of files that do not say"
    )
    add_engine(parser)
    parser.add_argument(
        "--shard", metavar="I/N", help="of a manifest, every N-th scan from the I-th"
    )


def main(args: argparse.Namespace) -> int:
    """Simulate; 0 done, 1 some scans of a manifest failed; other faults are one sentence."""
    from motionlib.motion.on_disk import Motion, corrupt_file, corrupt_manifest

    motion = Motion(
        method=args.method,
        translation_mm=tuple(args.translation_mm),
        rotation_deg=tuple(args.rotation_deg),
        axis=args.axis,
        seed=args.seed,
        positions=args.positions,
        points=args.points,
        positive=args.positive,
        realistic=args.realistic,
        part=args.part,
        trajectory=args.trajectory,
        orientation=args.assume_orientation,
    )
    if not args.input.endswith(".tsv") and not Path(args.input).is_dir():
        if args.shard or args.engine != "inline":
            raise ValueError("--shard and --engine are for a manifest (.tsv); IN is one image.")
        corrupt_file(args.input, args.output, motion)
        record = args.output.removesuffix(".gz").removesuffix(".nii") + ".json"
        how = "replayed" if args.trajectory else f"seed {args.seed}"
        print(f"{args.output}: moved ({args.method}, {how}); how is told in {record}")
        return 0
    if args.shard and args.engine != "inline":
        raise ValueError("--shard and --engine exclude each other; give one of them.")
    from motionlib.preprocess.finder import write_scan_table

    outcome = corrupt_manifest(
        write_scan_table([args.input], args.output, report=say),
        args.output,
        motion,
        engine=args.engine,
        shard=args.shard,
        progress=say,
    )
    said, n_failed = tell_outcome(outcome)
    print(f"{said}; one row per scan in {args.output}/outcome*.tsv")
    return 1 if n_failed else 0
