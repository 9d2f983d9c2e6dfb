"""A manifest comes in; a CAPS folder of t1-linear scans, with one outcome per scan, goes out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import compute
from motionlib.compute import engines
from motionlib.files import (
    atomic,
    content_key,
    read_json,
    sha256_file,
    sweep,
    write_json,
    write_table,
)
from motionlib.manifest import COLUMNS, ManifestError, complete, find_faults, locate, read_text
from motionlib.preprocess.caps_names import caps_names, entities_of
from motionlib.preprocess.linear import t1_linear
from motionlib.preprocess.qcpicture import qc_picture
from motionlib.preprocess.registration import write_transform
from motionlib.preprocess.volumes import save_volume

ROW_COLUMNS = ("scan_id", "participant_id", "path")  # a fault here concerns that row alone
VERSION = 3  # raise it when the same scan would come out differently
DESCRIPTION = {"Name": "t1-linear", "CAPSVersion": "1.0.0", "DatasetType": "derivative"}


def preprocess_manifest(
    manifest: str | os.PathLike,
    out: str | os.PathLike,
    *,
    backend: str = "simpleitk",
    template: str | None = None,
    engine: str = "inline",
    cache: bool = False,
    progress=None,
) -> pd.DataFrame:
    """Preprocess every scan of a manifest into a CAPS folder.

    Parameters
    ----------
    manifest : path-like
        Rows whose id or path is faulty become failed rows; other faults refuse the call.
    out : path-like
        CAPS folder. What it already holds of the same scan and settings is kept.
    backend, template
        As for `motionlib.preprocess.linear.t1_linear`.
    engine : str, default="inline"
        As for `motionlib.compute.engines.submit`; ``shard:I/N`` does every N-th scan.
    cache : bool, default=False
        Also write float16 arrays for training, in ``cache-<hash of the manifest>``.
    progress : callable, optional
        Called with lines of text.

    Returns
    -------
    pandas.DataFrame
        One row per scan: ``scan_id status reason path`` and the numbers of
        `linear.Quality`; status is ``done``, ``kept`` or ``failed``. Also written
        as ``outcome.tsv``, beside ``manifest.tsv`` of the scans that are there.
    """
    manifest, out = Path(manifest), Path(out)
    table, refused = usable_rows(manifest)
    settings = {"backend": backend, "template": None if template is None else str(template)}
    items = [
        {
            "scan_id": row["scan_id"],
            "source": str(locate(row["path"], manifest.parent)),
            "out": str(out),
            "names": _names(row),
            **settings,
        }
        for row in table[~table["refused"]].to_dict("records")
    ]
    shared = _share_names(items)
    results = compute.submit(
        preprocess_one,
        [item for item in items if item["scan_id"] not in shared],
        engine=engine,
        label="preprocess",
        progress=progress,
    )
    rows = [outcome_row(result) for result in results]
    rows += [failed_row(scan, "shares its CAPS name with another scan") for scan in sorted(shared)]
    rows += [failed_row(r["scan_id"], r["fault"]) for r in refused.to_dict("records")]
    rows = [row for row in rows if not str(row["reason"]).startswith(engines.ELSEWHERE)]
    outcome = pd.DataFrame(rows)
    write_json(out / "dataset_description.json", DESCRIPTION)
    name = engine.removeprefix("shard:").replace("/", "-of-")
    write_table(outcome, out / (f"outcome_{name}.tsv" if "shard:" in engine else "outcome.tsv"))
    if "shard:" not in engine:
        sweep(out / name for item in items for name in _written(item))
        _write_manifests(table, outcome, manifest, out, cache)
    return outcome


def preprocess_one(item: dict) -> dict:
    """Preprocess one scan, or find it done; see `preprocess_manifest`."""
    out, names = Path(item["out"]), item["names"]
    record = out / "qc" / f"{item['scan_id']}.json"
    start = {"scan_id": item["scan_id"], "reason": "", "path": names["cropped"]}
    try:
        source = Path(item["source"])
        key = content_key(VERSION, item["backend"], item["template"], identity(source))
        image = out / names["cropped"]
        if record.is_file() and image.is_file() and read_json(record).get("key") == key:
            said = read_json(record)
            return start | {"status": "kept"} | said["quality"]
        volume, affine, qc = t1_linear(source, backend=item["backend"], template=item["template"])
    except (ValueError, FileNotFoundError) as error:
        return failed_row(item["scan_id"], str(error))
    matrix = np.array(qc.pop("matrix"))
    record.unlink(missing_ok=True)  # never beside an image that it does not describe
    with atomic(out / names["affine"]) as aside:
        write_transform(matrix, aside)
    qc_picture(volume, out / "qc" / f"{item['scan_id']}.png")
    save_volume(volume, affine, image)
    write_json(record, {"key": key, "quality": qc, "matrix": matrix.tolist()})
    return start | {"status": "done"} | qc


def identity(source: Path) -> list:
    """Tell what changes when a file does: its size and time of change."""
    if not source.exists():
        raise FileNotFoundError(f"{source.name} is no file; expected an image.")
    status = source.stat()
    return [status.st_size, status.st_mtime_ns]


def usable_rows(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the manifest, those refused marked, and one fault for each of the latter."""
    text = read_text(path)
    if "source_participant_id" not in text and "participant_id" in text:
        text["source_participant_id"] = text["participant_id"]
    needed = text.reindex(columns=[*text.columns, *(c for c in COLUMNS if c not in text)])
    if missing := [name for name in ROW_COLUMNS if name not in text]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; a manifest has them.")
    table, faults = find_faults(needed.assign(cohort=needed["cohort"].fillna("bids")))
    first_of_many = ~table["scan_id"].duplicated() & ~table["path"].duplicated()
    twice = faults["fault"].str.endswith("stands in more than one row")
    faults = faults[~(twice & first_of_many.reindex(faults["row"]).to_numpy(dtype=bool))]
    other = faults[~faults["column"].isin([*ROW_COLUMNS, "source_participant_id"])]
    other = other[~other["fault"].str.contains("stands in more than one")]
    if len(other):
        raise ManifestError(other, path.name)
    faults = faults.drop_duplicates("row")
    table["refused"] = table.index.isin(faults["row"])
    faults = faults.assign(
        scan_id=faults["scan_id"].fillna("row " + faults["row"].astype("string"))
    )
    return table, faults


def _names(row: dict) -> dict:
    """CAPS names of one row's files."""
    participant, session, extra = entities_of(row["scan_id"], row["participant_id"])
    names = caps_names(participant, session, extra=extra)
    return {"cropped": names.cropped, "affine": names.affine}


def _written(item: dict) -> list[str]:
    """Names of the files that `preprocess_one` writes for a scan."""
    return [*item["names"].values(), f"qc/{item['scan_id']}.png", f"qc/{item['scan_id']}.json"]


def _share_names(items: list[dict]) -> set[str]:
    """Find scans whose files another scan has already claimed."""
    seen: set[str] = set()
    shared = set()
    for item in items:
        if item["names"]["cropped"] in seen:
            shared.add(item["scan_id"])
        seen.add(item["names"]["cropped"])
    return shared


def outcome_row(result) -> dict:
    """Make an outcome row; a task that raised, or lost its worker, becomes a failed row."""
    if isinstance(result, compute.Failure):
        return failed_row(result.item["scan_id"], result.error)
    return result


def failed_row(scan_id: str, reason: str) -> dict:
    """Make the outcome row of a scan that could not be done."""
    return {"scan_id": scan_id, "status": "failed", "reason": reason, "path": ""}


def _write_manifests(table, outcome, source: Path, out: Path, cache: bool) -> None:
    """Write the manifest of what is there, and the float16 arrays if asked for."""
    there = outcome[outcome["status"] != "failed"].set_index("scan_id")
    kept = table[~table["refused"] & table["scan_id"].isin(there.index)].drop(columns="refused")
    kept = kept.assign(path=kept["scan_id"].map(there["path"]), sha256=pd.NA)
    if not len(kept):
        return
    kept["sha256"] = [sha256_file(out / path) for path in kept["path"]]
    write_table(complete(kept), out / "manifest.tsv")
    if not cache:
        return
    from motionlib.preprocess.images import read_array

    folder = out / f"cache-{sha256_file(source)[:12]}"
    for scan, path in zip(kept["scan_id"], kept["path"], strict=True):
        array = read_array(out / path)[0]
        scaled = array / max(float(np.percentile(array, 99.5)), 1e-6)
        with atomic(folder / f"{scan}.npy") as aside:
            np.save(aside, np.minimum(scaled, 100).astype(np.float16))
    arrays = kept.assign(path=kept["scan_id"] + ".npy", sha256=pd.NA)
    write_table(complete(arrays), folder / "manifest.tsv")
