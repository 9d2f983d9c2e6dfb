"""Any BIDS folder: its T1-weighted images, with demographics and what the sidecars tell."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.selection import ScanFilter, Selection
from motionlib.manifest import RANGES
from motionlib.preprocess.finder import bids_images, stem, told

FACTS = ("field_strength", "manufacturer", "contrast_agent")
KNOWN = ("ds000011", "ds002748")


def read(
    root: str | os.PathLike, *, cohort: str | None = None, parts: Sequence[str] = ("",)
) -> Selection:
    """Read any BIDS folder.

    `root` holds ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]``, and ``participants.tsv`` if there is one;
    `parts` are folders below it, where one cohort lies in several BIDS folders. The column `cohort`
    is by default ``bids``, or the accession number in the description; ``scan_id`` is the file's
    name without its suffix. Field strength, manufacturer and contrast agent come from the sidecars,
    inherited from the folders above.
    """
    root = sources.need_folder(root)
    rows, aside = [], []
    for part in parts:
        images, left = bids_images(root / part)
        rows += [(subject, stem(path), f"{part}{path}") for subject, _, path in images]
        aside += left
    table = pd.DataFrame(rows, columns=["participant_id", "scan_id", "path"], dtype="string")
    if table.empty:
        raise FileNotFoundError(f"{root} holds no sub-*/[ses-*/]anat/*_T1w.nii.gz.")
    scans = ScanFilter(table, "T1w images in the folder", "sub-*/[ses-*/]anat/*_T1w.nii[.gz]")
    if aside:
        scans.note("not of the data set", f"left aside: {told(aside)}")
    sources.drop_unusable(scans, root)
    sources.add_people(scans, root, parts)
    add_sidecar_facts(scans, root)
    scans.table = scans.table.assign(cohort=cohort or _cohort_name(root))
    return scans.select(root)


def add_sidecar_facts(scans: ScanFilter, root: Path, names: Sequence[str] = FACTS) -> None:
    """Join what the sidecars tell of scanner and contrast agent; the flow names broken ones."""
    contents: dict[Path, dict] = {}
    listings: dict[Path, list[str]] = {}
    faults: list[str] = []
    rows = []
    for path in scans.table["path"]:
        facts: dict = {}
        for sidecar in _sidecars(root, path, listings):
            if sidecar not in contents:
                contents[sidecar] = _read_sidecar(sidecar, faults)
            facts |= contents[sidecar]
        if re.search(r"_ce-\w+?_", path):
            facts["contrast_agent"] = 1
        rows.append(facts)
    table = pd.DataFrame([[row.get(name) for name in names] for row in rows], columns=list(names))
    scans.table = scans.table.join(table.set_axis(scans.table.index))
    if faults:
        scans.note("sidecars", f"not understood, so not known: {told(faults)}")


def _sidecars(root: Path, path: str, listings: dict) -> Iterator[Path]:
    """Sidecars of an image from the root down to its own: BIDS's rule of inheritance."""
    entities = set(stem(path).split("_"))
    folders = [root, *(root / part for part in reversed(Path(path).parents) if part.name)]
    for folder in folders:
        if folder not in listings:
            listings[folder] = [n for n in os.listdir(folder) if n.endswith("T1w.json")]
        names = listings[folder]
        told_of = [n for n in names if set(n.removesuffix(".json").split("_")) <= entities]
        yield from (folder / name for name in sorted(told_of, key=len))


def _read_sidecar(path: Path, faults: list[str]) -> dict:
    """Read what one sidecar tells; a fault of it is added to the list."""
    try:
        if not path.is_file():  # a pipe would never answer
            raise ValueError("it is no regular file")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError("it holds no names and values")
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path.name} is no JSON sidecar ({error})")
        return {}
    facts = {}
    tesla, maker = content.get("MagneticFieldStrength"), content.get("Manufacturer")
    low, high = RANGES["field_strength"]
    if isinstance(tesla, int | float) and low <= tesla <= high:
        facts["field_strength"] = float(tesla)
    elif tesla is not None:
        faults.append(f"{path.name}: MagneticFieldStrength is {tesla!r}")
    if isinstance(maker, str):
        facts["manufacturer"] = maker
    if "ContrastBolusIngredient" in content:
        given = content["ContrastBolusIngredient"] not in (None, "", "NONE", "none")
        facts["contrast_agent"] = 1 if given else None
    return facts


def _cohort_name(root: Path) -> str:
    """Name the cohort by the accession number in the description, if the manifest knows it."""
    description = root / "dataset_description.json"
    text = description.read_text("utf-8", errors="replace") if description.is_file() else ""
    return next((name for name in KNOWN if name in text), "bids")
