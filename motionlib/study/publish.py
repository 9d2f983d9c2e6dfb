"""What of a finished run is published: tables, figures, predictions and provenance.

They go to ``results/<profile>/`` of the repository; scans, checkpoints and caches stay where they
are.  The headline table of one profile is put into the README.
"""

import argparse
import gzip
import shutil
import sys
from pathlib import Path

import pandas as pd

from motionlib import files
from motionlib.files import repository, runs_root
from motionlib.paper import tables
from motionlib.paper.claims import claims
from motionlib.study.notebooks import find_notebooks, notebooks_folder
from motionlib.study.run import check_layout
from motionlib.tasks import TASK_GRADES
from motionlib.typeset import label

KEPT = ("splits.csv", "provenance.json", "durations.csv")
HEADLINE = "hospital"  # the profile whose claims and table open the README
REAL = "real"  # the one that has been tried on scans that people graded
ALSO = {"demo": "On a laptop (`demo`)", REAL: f"Real heads, emulated motion (`{REAL}`)"}
NEVER = ("smoke",)  # its numbers mean nothing
SHOWN = (  # methods in the README
    *("annotators", "fine_tuned", "from_scratch", "research_only", "forest_research"),
    *("forest_clinical", "fine_tuned_recommended", "research_only_recommended", "pooled_head"),
)
DETECTORS = ("air_spread", "forest_mrqy", "votes_research_only", "votes_fine_tuned")
START, END = "<!-- headline:start -->", "<!-- headline:end -->"


def publish(run: Path, results: Path, *, predictions: bool = True) -> list[str]:
    """Copy what may be committed from a finished run, and return the names of the files.

    The former tables and figures in `results` go.  The predictions, which are packed, name scans:
    leave them out where a licence says so.  A run of a profile that is never published, of another
    version of motionlib or in which a notebook has not finished is a ValueError.
    """
    if run.name in NEVER:
        raise ValueError(f"results of the profile {run.name} mean nothing; publish another one")
    check_layout(run)
    stamps = [files.read_json(path) for path in (run / "stamps").glob("[0-9]*.json")]
    finished = {stamp["notebook"] for stamp in stamps if stamp.get("key")}
    missing = [n.stem for n in find_notebooks(notebooks_folder()) if n.stem not in finished]
    if missing:
        raise ValueError(
            f"profile {run.name} is not finished (not {', '.join(missing)}); run: make study "
            f"PROFILE={run.name}"
        )
    parts = ("tables", "figures")
    copied = [f"{part}/{path.name}" for part in parts for path in sorted((run / part).iterdir())]
    copied += [name for name in KEPT if (run / name).is_file()]
    for part in parts:
        shutil.rmtree(results / part, ignore_errors=True)
    for name in copied:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, results / name)
    if predictions:
        packed = gzip.compress((run / "predictions.csv").read_bytes(), mtime=0)
        (results / "predictions.csv.gz").write_bytes(packed)
        copied.append("predictions.csv.gz")
    return copied


def main(argv: list[str] | None = None) -> int:
    """Publish one profile from the command line (``make results PROFILE=real``)."""
    parser = argparse.ArgumentParser(
        prog="python -m motionlib.study.publish", description=main.__doc__
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--runs", metavar="DIR")
    parser.add_argument("--without-predictions", action="store_true")
    args = parser.parse_args(argv)
    results = repository() / "results" / args.profile
    try:
        run = runs_root(args.runs) / args.profile
        copied = publish(run, results, predictions=not args.without_predictions)
        if args.profile in (HEADLINE, *ALSO):
            insert(repository() / "README.md", results.with_name(HEADLINE))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(copied)} files in results/{args.profile}")
    return 0


def headline_lines(folder: Path) -> list[str]:
    """Write the claims and the main methods of a published run as Markdown lines.

    The whole of Table IV lies in the run's ``tables/``.
    """
    table = tables.headline(folder).fillna("")
    lines = [f"- {sentence}" for sentence in _claims(folder)]
    lines += _seeds_lines(folder.parent.parent / "benchmarks" / "results" / "seeds.csv")
    lines += _also_lines(folder) + real_motion_lines(folder.parent)
    lines += [
        "",
        "| balanced accuracy (%) | severe: paper | ours [95 %] | mild: paper | ours [95 %] |",
        "|---|---|---|---|---|",
    ]
    for method in [name for name in SHOWN if name in set(table["method"])]:
        row = [label(method)]
        for task in TASK_GRADES:
            mine = table[(table["task"] == task) & (table["method"] == method)]
            cells = mine[["ba_paper", "ba_ours"]].iloc[0] if len(mine) else ("", "")
            row += list(cells)
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _claims(folder: Path) -> list[str]:
    """Read the sentences of a published run."""
    return claims(*(pd.read_csv(folder / "tables" / f"{n}.csv") for n in ("table_4", "mcnemar")))


def _seeds_lines(path: Path) -> list[str]:
    """Say what fine-tuning gains as a mean over seeds of the demo, where they were run."""
    if not path.is_file():
        return []
    table = pd.read_csv(path)
    mean = table[(table["seed"] == "mean") & table["what"].str.match("fine-tuned.* minus ")]
    gains = []
    for row in mean.to_dict("records"):
        gain, low, high = (
            f"{100 * row[f'balanced_accuracy{end}']:+.1f}" for end in ("", "_low", "_high")
        )
        gains.append(f"{row['what'].replace(' minus ', ' over ')} {gain} [{low}, {high}]")
    made = f"{table['seed'].nunique() - 1} seeds of an earlier `demo` (intervals draw patients)"
    return [f"- Mean of {made}: {'; '.join(gains)} points."]


def _also_lines(headline: Path) -> list[str]:
    """Say what fine-tuning gains in the other profiles that were published."""
    lines = []
    for profile, words in ALSO.items():
        folder = headline.with_name(profile)
        if folder != headline and (folder / "tables" / "table_4.csv").is_file():
            first, *rest = _claims(folder)  # the first ends with the number of scans
            tuned = [s for s in rest if s.startswith("Fine-tuned")]
            lines.append(f"- {words}: {first.rpartition('(')[2][:-2]}. {' '.join(tuned)}")
    return lines


def real_motion_lines(results: Path) -> list[str]:
    """Write the detectors of real motion in one sentence (``table_real_motion`` of `REAL`).

    None where the run has judged no scan that people graded.
    """
    path = Path(results) / REAL / "tables" / "table_real_motion.csv"
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    if "auc" not in table:
        return []
    first = table[table["task"] == table["task"].iloc[0]]
    parts = [
        f"{row.auc:.2f} [{row.auc_low:.2f}, {row.auc_high:.2f}] by {label(row.detector)}"
        for row in first[first["detector"].isin(DETECTORS)].itertuples()
    ]
    row = first.iloc[0]
    scans = f"{label(row['task'])}: {row['n_positive']} of {row['n']} scans"
    return [f"- Real motion that people saw ({scans}), AUC {'; '.join(parts)}."]


def insert(readme: Path, folder: Path) -> None:
    """Put the headline table of a published run into a README, between its marks."""
    text = readme.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{readme.name} lacks {START} and {END}; put them where the table goes")
    body = "\n".join(headline_lines(folder))
    files.write_text(readme, f"{before}{START}\n{body}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
