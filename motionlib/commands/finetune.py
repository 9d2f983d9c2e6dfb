"""Command ``finetune``: a model fine-tuned on own grades, and judged on patients apart."""

import argparse
import sys

from motionlib.commands import add_engine, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib finetune``."""
    parser.add_argument(
        "manifest",
        help="table (TSV) with scan_id, participant_id, path and motion_grade (0, 1, 2), or the "
        "grades of rater_1 and rater_2, of which the larger counts",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="CHECKPOINT",
        help="model folder to start from (default: the shipped model)",
    )
    parser.add_argument(
        "--task",
        required=True,
        choices=("mov01vs2", "mov0vs1"),
        help="severe motion against the rest, or mild motion against none",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--epochs", type=int, default=20, help="default: 20")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="default: 1e-4")
    parser.add_argument(
        "--test-fraction", type=float, default=0.3, help="of the scans, by patient (default: 0.3)"
    )
    parser.add_argument(
        "--folds", type=int, default=5, help="1/N of the training patients validate (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=20, help="of split and training (default: 20)")
    parser.add_argument("--voxel-mm", type=float, help="if the checkpoint does not say it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add_engine(parser)


def main(args: argparse.Namespace) -> int:
    """Fine-tune and report; 0 if every graded scan was used, 1 if some could not be."""
    from motionlib.scoring.model import default_model
    from motionlib.scoring.own_grades import TuningPlan, fine_tune_own, worth_of_grades
    from motionlib.scoring.reports import write_tuning_report

    plan = TuningPlan(
        task=args.task,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        test_fraction=args.test_fraction,
        n_folds=args.folds,
        seed=args.seed,
        voxel_mm=args.voxel_mm,
    )
    outcome = fine_tune_own(
        args.manifest,
        args.source or default_model(),
        args.out,
        plan,
        device=args.device,
        engine=args.engine,
        progress=say,
    )
    report = write_tuning_report(outcome)
    for row in outcome.left_out.itertuples():
        print(f"{row.scan_id}: {row.reason}", file=sys.stderr)
    for line in outcome.warnings:
        print(f"warning: {line}", file=sys.stderr)
    print(*filter(None, [worth_of_grades(), outcome.promise]), sep="\n")
    kappa = outcome.grading.kappa
    if kappa is None:
        print(outcome.grading.reason)
    else:
        print(
            f"grades: linear weighted kappa {kappa.estimate:.3f} [{kappa.low:.3f}, "
            f"{kappa.high:.3f}] on {kappa.n} test scans"
        )
    last = outcome.metrics.iloc[-1]
    print(
        f"balanced accuracy {last['balanced_accuracy']:.3f} [{last['balanced_accuracy_low']:.3f}, "
        f"{last['balanced_accuracy_high']:.3f}] on {last['n']} test scans; report: {report}"
    )
    return 1 if len(outcome.left_out) else 0
