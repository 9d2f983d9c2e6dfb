"""What of a finished run is published: tables, figures, predictions and provenance.

They go to ``results/<profile>/`` of the repository; scans, checkpoints and caches stay where they
are.  The headline table of one profile is put into the README.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd

from motionlib import files
from motionlib.figures.theme import title_of
from motionlib.files import repository, runs_root
from motionlib.paper import tables
from motionlib.paper.claims import claims
from motionlib.study.run import check_layout

KEPT = ("predictions.csv", "splits.csv", "provenance.json", "durations.csv")
HEADLINE = "demo"  # the profile whose claims and table open the README
REAL = "real"  # the one that has been tried on scans that people graded
NEVER = ("smoke",)  # its numbers mean nothing
START, END = "<!-- headline:start -->", "<!-- headline:end -->"
WORDS = {
    "mov01vs2": "severe motion",
    "mov0vs1": "mild motion",
    "annotators": "annotators",
    "fine_tuned": "network, fine-tuned",
    "research_only": "network, research data only",
    "from_scratch": "network, from scratch",
    "fine_tuned_recommended": "recommended recipe, fine-tuned",
    "research_only_recommended": "recommended recipe, research data only",
    "fine_tuned_kspace": "k-space pre-training, fine-tuned",
    "fine_tuned_chosen": "recommended recipe, depth chosen in each fold",
    "pooled_head": "regression on frozen features (recommended)",
    "untrained_features": "regression on untrained features",
    "forest_research": "forest, research data",
    "forest_clinical": "forest, warehouse",
}


def publish(run: Path, results: Path, *, predictions: bool = True) -> list[str]:
    """Copy what may be committed from a finished run, and return the names of the files.

    The former tables and figures in `results` go.  `predictions.csv` names scans: leave it out
    where a licence says so.  A run of a profile that is never published, of another version of
    motionlib or not finished is a ValueError.
    """
    if run.name in NEVER:
        raise ValueError(f"results of the profile {run.name} mean nothing; publish another one")
    check_layout(run)
    stamps = [files.read_json(path) for path in sorted((run / "stamps").glob("[0-9]*.json"))]
    unfinished = [stamp["notebook"] for stamp in stamps if not stamp.get("key")]
    if not stamps or unfinished:
        what = f"{', '.join(unfinished)} not finished" if unfinished else "nothing has run"
        raise ValueError(
            f"profile {run.name} is not finished ({what}); run: make study PROFILE={run.name}"
        )
    parts = ("tables", "figures")
    copied = [f"{part}/{path.name}" for part in parts for path in sorted((run / part).iterdir())]
    copied += [name for name in KEPT if (run / name).is_file()]
    if not predictions:
        copied.remove("predictions.csv")
    for part in parts:
        shutil.rmtree(results / part, ignore_errors=True)
    for name in copied:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, results / name)
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
        if args.profile in (HEADLINE, REAL):
            insert(repository() / "README.md", results.with_name(HEADLINE))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(copied)} files in results/{args.profile}")
    return 0


def headline_lines(folder: Path) -> list[str]:
    """Write the claims, Table IV and real motion of a published run as Markdown lines."""
    table = tables.headline(folder)
    parts = [pd.read_csv(folder / "tables" / f"{name}.csv") for name in ("table_4", "mcnemar")]
    lines = [f"- {sentence}" for sentence in claims(*parts)]
    lines += [
        "",
        "| task | method | BA, paper | BA, ours [95 %] | AUC, ours [95 %] | scans |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.fillna("").itertuples():
        names = f"{WORDS.get(row.task, row.task)} | {WORDS.get(row.method, row.method)}"
        lines.append(f"| {names} | {row.ba_paper} | {row.ba_ours} | {row.auc_ours} | {row.n} |")
    return lines + real_motion_lines(folder.with_name(REAL))


def real_motion_lines(folder: Path) -> list[str]:
    """Write what detectors make of IXI's rated scans (``table_real_motion``), if the run has it."""
    path = Path(folder) / "tables" / "table_real_motion.csv"
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    if "auc" not in table:
        return []
    cells = table.assign(
        cell=[f"{r.auc:.2f} [{r.auc_low:.2f}, {r.auc_high:.2f}]" for r in table.itertuples()]
    )
    cells = cells.pivot(index="detector", columns="task", values="cell")
    tasks = list(dict.fromkeys(table["task"]))
    sizes = table.drop_duplicates("task").set_index("task")[["n_positive", "n"]]
    heads = [f"{title_of(t)} ({sizes.n_positive[t]} of {sizes.n[t]})" for t in tasks]
    lines = ["", f"| real motion, graded by people: AUC [95 %] | {' | '.join(heads)} |"]
    lines.append("|---" * (1 + len(tasks)) + "|")
    for name in dict.fromkeys(table["detector"]):
        lines.append(f"| {title_of(name)} | {' | '.join(cells.loc[name, tasks])} |")
    return lines


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
