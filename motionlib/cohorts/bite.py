"""MNI BITE, group 3: brain tumours before and after surgery, with contrast agent."""

import os

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.selection import ScanFilter, Selection

PATIENTS = [number for number in range(1, 15) if number != 13]  # group 3 has no 13
SESSIONS = {"preop": "preop_mri", "postop": "postop_mri"}
SUFFIXES = (".mnc", ".nii.gz", ".nii")


def read(root: str | os.PathLike) -> Selection:
    """Read MNI BITE, group 3: two scans a patient, 13 patients and 26 images when complete.

    `root` holds ``group3/NN/NN_{preop,postop}_mri.mnc`` or NIfTI of that name, or is ``group3``.
    Source: paper §III-A.1 (1.5 T GE Signa EXCITE, contrast-enhanced T1w).
    """
    root = sources.need_folder(root)
    base = "group3/" if (root / "group3").is_dir() else ""
    if not any((root / f"{base}{number:02d}").is_dir() for number in PATIENTS):
        raise FileNotFoundError(f"{root} holds no group3/01 to 14; expected MNI BITE's group 3.")
    rows = []
    for number in PATIENTS:
        for session, name in SESSIONS.items():
            start = f"{base}{number:02d}/{number:02d}_{name}"
            path = next((start + s for s in SUFFIXES if (root / (start + s)).exists()), None)
            rows.append(
                {
                    "participant_id": f"sub-{number:02d}",
                    "scan_id": f"sub-{number:02d}_ses-{session}_ce-gadolinium_T1w",
                    "path": path or start + SUFFIXES[0],
                }
            )
    scans = ScanFilter(
        pd.DataFrame(rows), "images of group 3", "13 patients, before and after surgery"
    )
    sources.drop_unusable(scans, root)
    sources.add_people(scans, root)
    scans.table = scans.table.assign(
        cohort="bite", contrast_agent=1, manufacturer="GE", field_strength=1.5
    )
    return scans.select(root)
