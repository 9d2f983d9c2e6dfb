"""MSSEG 2016: multiple sclerosis, 3D T1-weighted scans with gadolinium."""

import os
import re
from pathlib import Path

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.selection import ScanFilter, Selection

IMAGE_NAMES = ("3DT1GADO.nii.gz", "3DT1GADO.nii")


def read(root: str | os.PathLike) -> Selection:
    """Read the raw 3DT1GADO of every patient, one contrast-enhanced scan each.

    `root` holds ``[Training|Testing/]Center_XX/Patient_XX/Raw_Data/3DT1GADO.nii.gz``, or the older
    ``01016SACH/3DT1GADO.nii``, and perhaps ``participants.tsv``. Scanners stay empty: the numbering
    of the centres is not published beside the images.
    Source: paper §III-A.1 (53 patients, four scanners, 3D T1w after gadolinium only).
    """
    root = sources.need_folder(root)
    rows = [_row(root, folder) for folder in _patients(root)]
    if not rows:
        raise FileNotFoundError(
            f"{root} holds no Center_*/Patient_* and no folder with 3DT1GADO.nii.gz."
        )
    scans = ScanFilter(pd.DataFrame(rows), "patients in the folder", "Center_*/Patient_*")
    stripped = scans.table["path"].isna() & scans.table["preprocessed"]
    scans.drop("raw images", stripped, "has only Preprocessed_Data, which is skull-stripped")
    none = scans.table["path"].isna()
    scans.drop("3D T1w with gadolinium", none, "has no Raw_Data/3DT1GADO.nii.gz")
    sources.drop_unusable(scans, root)
    sources.add_people(scans, root)
    scans.table = scans.table.drop(columns="preprocessed").assign(cohort="msseg", contrast_agent=1)
    return scans.select(root)


def _patients(root: Path) -> list[Path]:
    """Folders of patients, new and old layout."""
    new = [p for level in ("", "*/", "*/*/") for p in root.glob(f"{level}Center_*/Patient_*")]
    old = [
        p.parent
        for name in IMAGE_NAMES
        for level in ("*/", "*/*/")
        for p in root.glob(level + name)
    ]
    old = [path for path in old if path.name != "Raw_Data" and path not in new]
    return sorted({path for path in [*new, *old] if path.is_dir()})


def _row(root: Path, folder: Path) -> dict:
    """One patient; the name keeps set, centre and patient, which alone are not unique."""
    parts = folder.relative_to(root).parts
    name = "".join(re.sub(r"(Center|Patient)_", lambda m: m[1][0], part) for part in parts)
    name = re.sub("[^A-Za-z0-9]", "", name)
    places = [folder / sub / image for sub in ("Raw_Data", ".") for image in IMAGE_NAMES]
    image = next((place for place in places if os.path.lexists(place)), None)
    return {
        "participant_id": f"sub-{name}",
        "scan_id": f"sub-{name}_ce-gadolinium_T1w",
        "path": None if image is None else image.relative_to(root).as_posix(),
        "preprocessed": (folder / "Preprocessed_Data").is_dir(),
    }
