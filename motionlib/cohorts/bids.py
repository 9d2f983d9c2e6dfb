"""Any BIDS folder: its T1-weighted images, with demographics and what the sidecars tell."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.selection import ScanFilter, Selection

KNOWN = ("ds000011", "ds002748")
FACTS = {"field_strength": "MagneticFieldStrength", "manufacturer": "Manufacturer"}


def read(
    root: str | os.PathLike,
    *,
    cohort: str | None = None,
    check_files: bool = True,
    parts: Sequence[str] = ("",),
) -> Selection:
    """Read any BIDS folder.

    Parameters
    ----------
    root : path-like
        Holds ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]``, and ``participants.tsv`` if there is one.
    cohort : str, optional
        Name for the column; by default ``bids``, or the accession number in the description.
    check_files : bool, default=True
        Open every header.
    parts : sequence of str
        Folders below `root`, where one cohort lies in several BIDS folders.

    Returns
    -------
    Selection
        ``scan_id`` is the file's name without its suffix. Field strength, manufacturer and
        contrast agent come from the sidecars, inherited from the folder's ``T1w.json``.
    """
    root = sources.need_folder(root)
    rows = [
        {"participant_id": subject, "scan_id": sources.stem(path), "path": f"{part}{path}"}
        for part in parts
        for subject, _, path in sources.t1w_images(root / part)
    ]
    table = pd.DataFrame(rows, columns=["participant_id", "scan_id", "path"], dtype="string")
    if table.empty:
        raise FileNotFoundError(f"{root} holds no sub-*/[ses-*/]anat/*_T1w.nii.gz.")
    scans = ScanFilter(table, "T1w images in the folder", "sub-*/[ses-*/]anat/*_T1w.nii[.gz]")
    sources.drop_unusable(scans, root, check_files=check_files)
    people = pd.concat([sources.demographics(root / part) for part in parts])
    table = scans.table.join(people[~people.index.duplicated()], on="participant_id")
    facts = [sidecar_facts(root, path) for path in table["path"]]
    table = table.join(pd.DataFrame(facts, index=table.index))
    scans.table = table.assign(cohort=cohort or _cohort_name(root))
    return scans.select(root)


def sidecar_facts(root: Path, path: str) -> dict:
    """Scanner and contrast agent from an image's JSON sidecar."""
    said = {}
    for place in (root / "T1w.json", root / (path.removesuffix(".gz")[: -len(".nii")] + ".json")):
        if place.is_file():
            try:
                said |= json.loads(place.read_text(encoding="utf-8"))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{place.name} is no JSON: {error}.") from error
    facts = {name: said.get(key) for name, key in FACTS.items()}
    given = said.get("ContrastBolusIngredient")
    entity = re.search(r"_ce-(\w+?)_", path)
    facts["contrast_agent"] = 1 if given not in (None, "", "NONE", "none") or entity else None
    return facts


def _cohort_name(root: Path) -> str:
    """Name the cohort by the accession number in the description, if the manifest knows it."""
    description = root / "dataset_description.json"
    said = description.read_text(encoding="utf-8") if description.is_file() else ""
    return next((name for name in KNOWN if name in said), "bids")
