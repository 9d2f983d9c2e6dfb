"""A folder comes in; small cohorts of the profiles `open` and `paper` come out.

True names and tables, heads of 24x28x24 voxels of 8 mm.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np

from motionlib.preprocess.images import phantom

GRADES = (0, 1, 2)


class Heads:
    """Write small heads below a folder, each another."""

    def __init__(self, root: Path):
        self.root, self.count = root, 0

    def put(self, path: str) -> str:
        """Write one head and return its path."""
        head = phantom((24, 28, 24), seed=self.count)[0].numpy()
        affine = np.diag([8.0, 8.0, 8.0, 1.0])
        affine[:3, 3] = -8.0 * (np.array(head.shape) - 1) / 2
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image((1000 * head).astype(np.int16), affine), self.root / path)
        self.count += 1
        return path

    def write(self, path: str, *lines: str) -> None:
        """Write a table."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def open_cohorts(root: Path, *, n_ixi: int = 14, n_art: int = 8) -> Path:
    """IXI as downloaded, and MR-ART (OpenNeuro ds004173) with the radiologists' scores."""
    heads = Heads(root)
    people = ['IXI_ID,"SEX_ID (1=m, 2=f)",AGE']
    for number in range(n_ixi):
        site = ("Guys", "HH", "IOP")[number % 3]
        heads.put(f"ixi/IXI{100 + number}-{site}-{700 + number:04d}-T1.nii.gz")
        people.append(f"{100 + number},{1 + number % 2},{30 + 2 * number}")
    heads.write("ixi/IXI.csv", *people)
    people, scores = ["participant_id\tsex\tage"], ["bids_name\tscore"]
    for number in range(n_art):
        name = f"sub-{600000 + number}"
        people.append(f"{name}\t{'MF'[number % 2]}\t{25 + number}")
        for grade, kind in zip(GRADES, ("standard", "headmotion1", "headmotion2"), strict=True):
            scan = f"{name}_acq-{kind}_T1w"
            heads.put(f"mr-art/{name}/anat/{scan}.nii.gz")
            scores.append(f"{scan}\t{1 + grade}")
    heads.write("mr-art/participants.tsv", *people)
    heads.write("mr-art/derivatives/scores.tsv", *scores)
    return root


def paper_cohorts(root: Path, *, n_adni: int = 10, n_warehouse: int = 36) -> Path:
    """ADNI by Clinica, MSSEG 2016, MNI BITE and a warehouse with its table of grades."""
    heads = Heads(root)
    _adni(heads, n_adni)
    for number in range(1, 7):
        centre = f"Training/Center_{1 + number % 3:02d}/Patient_{number:02d}"
        heads.put(f"msseg/{centre}/Raw_Data/3DT1GADO.nii.gz")
    for number, when in product((1, 2, 3, 4), ("preop", "postop")):
        heads.put(f"bite/group3/{number:02d}/{number:02d}_{when}_mri.nii.gz")
    rows = ["image,rater_1,rater_2,straight reject,age,sex,manufacturer,field_strength"]
    for number in range(n_warehouse):
        image = heads.put(f"aphp/sub-{number:03d}_ses-M000_T1w.nii.gz").removeprefix("aphp/")
        grade, reject = GRADES[number % 3], number == n_warehouse - 1
        second = min(2, grade + (number % 4 == 0))
        graded = ",,1" if reject else f"mov{grade},mov{second},0"
        rows.append(f"{image},{graded},{40 + number},{'MF'[number % 2]},Siemens,1.5")
    heads.write("aphp/grades.csv", *rows)
    return root


def _adni(heads: Heads, n_patients: int) -> None:
    """Two visits a patient without motion, and two other patients with it."""
    header = "Subject_ID VISCODE Visit Sequence Scan_Date Study_ID Series_ID Image_ID"
    paths = ["\t".join([*header.split(), "Field_Strength"])]
    scores = ["RID,VISCODE,LONIUID,PASS,IPMOTION"]
    people = ["participant_id\tsex\tage"]
    for patient in range(1, n_patients + 3):
        moves = patient > n_patients
        name = f"sub-ADNI011S{patient:04d}"
        people.append(f"{name}\t{'MF'[patient % 2]}\t{60 + patient}")
        for visit, code in enumerate(("bl", "m06")[: 1 if moves else 2]):
            series, session = 1000 + 10 * patient + visit, f"ses-M{6 * visit:03d}"
            day = f"2006-{1 + 6 * visit:02d}-02"
            row = (f"011_S_{patient:04d}", code, "ADNI1", "MPR", day, "1", str(series))
            paths.append("\t".join([*row, str(series + 5000), "1.5"]))
            scores.append(f"{patient},{code},S{series},1,{3 if moves else 0}")
            heads.put(f"adni/BIDS/{name}/{session}/anat/{name}_{session}_T1w.nii.gz")
    heads.write("adni/conversion_info/v0/t1_paths.tsv", *paths)
    heads.write("adni/MRIQUALITY.csv", *scores)
    note = "1,I9999,20060502,T1,no motion,"
    columns = "RID,LONI_IMAGE,series_date,series_type,Series_Comments,study_comments"
    heads.write("adni/MAYOADIRL_MRI_IMAGEQC_12_08_15.csv", columns, note)
    heads.write("adni/BIDS/participants.tsv", *people)
