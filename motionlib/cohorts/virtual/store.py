"""A generated cohort on disk: NIfTI files in a BIDS layout, one row of JSON a scan, a manifest.

Every scan is a task of its own: where its file and row exist and belong to the same plan, they are
reused, so that a killed run resumes and any single scan can be made again alone.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from motionlib import compute
from motionlib.cohorts.selection import flow_label
from motionlib.files import content_key, read_json, sha256_file, write_json, write_table
from motionlib.manifest import COLUMNS, complete, write_manifest
from motionlib.preprocess.images import save_volume

VERSION = 3  # raise when the same plan must give other images
LEVELS = 250  # grey levels at the foreground's mean
BRIGHTEST = 60  # times the foreground's mean; int16 ends at 131


def write_scan(item: dict, volume, affine, scanner: dict, grades, info: dict) -> dict:
    """Write the image, then its row; the row's presence means that the scan is whole.

    `volume` (I, J, K) is non-negative with a foreground mean near 1; `scanner` are its facts;
    `grades` the two raters', or None; `info` what only ``truth.tsv`` may know, such as the
    severity. Returns ``manifest`` (a row), ``truth`` (a row) and the plan's ``key``.
    """
    path = Path(item["root"]) / _image_path(item)
    levels = np.rint(np.clip(volume, 0, BRIGHTEST) * LEVELS)
    save_volume(levels, affine, path, dtype="int16")
    known = set(COLUMNS)
    row = {name: value for name, value in {**item, **scanner}.items() if name in known}
    row |= {
        "scan_id": scan_id(item),
        "path": _image_path(item).as_posix(),
        "sha256": sha256_file(path),
        "straight_reject": int(bool(item.get("reject"))),
    }
    row.setdefault("role", "excluded" if item.get("reject") else "warehouse")
    if grades is not None:
        row |= {"rater_1": grades[0], "rater_2": grades[1], "consensus": max(grades)}
        row["motion_grade"] = max(grades)
    truth = {"scan_id": row["scan_id"], "cohort": item["cohort"]}
    truth |= {name: value for name, value in {**scanner, **info}.items() if name not in known}
    truth["reject"] = item.get("reject") or None
    result = {"key": _plan_key(item), "manifest": row, "truth": truth}
    write_json(_row_path(item), result)
    return result


def make_all(
    make: Callable[[dict], dict], items: list[dict], *, engine: str, label: str
) -> tuple[list[dict], list[dict]]:
    """Make every planned scan that is not there yet, by `make`, which calls `write_scan`.

    Returns what `write_scan` returned for every finished scan, in the plan's order, and ``cohort
    reason`` of every scan that failed, for `selection.count_scans`.
    """
    done = {scan_id(item): row for item in items if (row := _finished(item)) is not None}
    todo = [item for item in items if scan_id(item) not in done]
    made = partial(_on_one_thread, make)
    results = compute.submit(made, todo, engine=engine, label=label, batch=4)
    failed = []
    for item, result in zip(todo, results, strict=True):
        if isinstance(result, compute.Failure):
            name = flow_label(item["cohort"], item.get("role", ""))
            failed.append({"cohort": name, "reason": f"{scan_id(item)}: {result.error}"})
        else:
            done[scan_id(item)] = result
    return [done[scan_id(item)] for item in items if scan_id(item) in done], failed


def collect(root: Path, rows: list[dict], *, kind: str, caption: str) -> pd.DataFrame:
    """Write ``manifest.tsv``, ``participants.tsv``, ``truth.tsv`` and ``cohort.json``.

    `rows` are those of `make_all`; `kind` and `caption` say what the images are, in one word and in
    one sentence. Returns the manifest, paths relative to `root`.
    """
    if not rows:
        raise ValueError(f"No scan could be made under {root.name}: read the flow's reasons.")
    manifest = complete(pd.DataFrame([row["manifest"] for row in rows]))
    write_manifest(manifest, root / "manifest.tsv")
    people = manifest.drop_duplicates("participant_id")[["participant_id", "age", "sex"]]
    write_table(people, root / "participants.tsv")
    truth = pd.DataFrame([row["truth"] for row in rows])
    rest = sorted(set(truth) - {"scan_id", "cohort"})  # rows read back have their names sorted
    write_table(truth[["scan_id", "cohort", *rest]], root / "truth.tsv")
    write_json(
        root / "dataset_description.json",
        {"Name": caption, "BIDSVersion": "1.9.0", "DatasetType": "raw"},
    )
    write_json(root / "cohort.json", {"kind": kind, "caption": caption, "n_scans": len(manifest)})
    return manifest


def scan_id(item: dict) -> str:
    """BIDS-like name of a planned scan."""
    return f"{item['participant_id']}_{item['session']}"


def _plan_key(item: dict) -> str:
    """Hash of everything that decides a scan's content, its folder aside."""
    return content_key(VERSION, {name: value for name, value in item.items() if name != "root"})


def _image_path(item: dict) -> Path:
    """Where a planned scan lies, relative to the root."""
    folder = Path(item["participant_id"]) / item["session"] / "anat"
    return folder / f"{scan_id(item)}_T1w.nii.gz"


def _row_path(item: dict) -> Path:
    """Where a finished scan's row lies."""
    return Path(item["root"]) / "rows" / f"{scan_id(item)}.json"


def _on_one_thread(make: Callable[[dict], dict], item: dict) -> dict:
    """Make a scan of which no bit depends on the number of threads (a task)."""
    with threadpool_limits(1):
        return make(item)


def _finished(item: dict) -> dict | None:
    """Row of a scan whose image and row exist and come from the same plan."""
    path = _row_path(item)
    if not (path.is_file() and (Path(item["root"]) / _image_path(item)).is_file()):
        return None
    row = read_json(path)
    return row if row.get("key") == _plan_key(item) else None
