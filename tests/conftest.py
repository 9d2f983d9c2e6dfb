"""Fixtures: a seeded generator, a phantom, a small manifest and predictions, data folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from motionlib import files

os.environ.setdefault("MPLBACKEND", "Agg")
settings.register_profile("any machine", deadline=None)  # a busy one is no failure
settings.load_profile("any machine")
os.environ.pop("MOTIONLIB_RUNS", None)  # no test writes into somebody's runs

MANIFEST_COLUMNS = (
    *("scan_id", "participant_id", "source_participant_id", "cohort", "path", "sha256", "age"),
    *("sex", "field_strength", "manufacturer", "contrast_agent", "motion_grade", "rater_1"),
    *("rater_2", "consensus", "straight_reject", "role", "fold"),
)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts alike in every test."""
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def phantom():
    """A head of 24x28x24 voxels, shape (1, 24, 28, 24); clone it before changing it."""
    from motionlib.preprocess.images import phantom as make_phantom

    return make_phantom((24, 28, 24), seed=0)


@pytest.fixture
def tiny_manifest() -> pd.DataFrame:
    """Twelve patients of three cohorts, two visits each; the last of each is the test set."""
    rows = []
    for patient in range(12):
        cohort = ("virtual-adni", "virtual-msseg", "virtual-bite")[patient % 3]
        for visit in range(2):
            test = patient >= 9
            rows.append(
                {
                    "scan_id": f"sub-{patient:02d}_ses-{visit + 1}",
                    "participant_id": f"sub-{patient:02d}",
                    "source_participant_id": f"{cohort}:{patient:02d}",
                    "cohort": cohort,
                    "path": f"sub-{patient:02d}/ses-{visit + 1}/anat/scan_T1w.nii.gz",
                    "sha256": pd.NA,
                    "age": 40.0 + 3 * patient,
                    "sex": "FM"[patient % 2],
                    "field_strength": (1.5, 3.0)[patient % 2],
                    "manufacturer": ("GE", "Siemens", "Philips")[patient % 3],
                    "contrast_agent": patient % 3 == 1,
                    "motion_grade": 0,
                    "rater_1": 0,
                    "rater_2": 0,
                    "consensus": 0,
                    "straight_reject": 0,
                    "role": "test" if test else "train",
                    "fold": pd.NA if test else patient % 3,
                }
            )
    table = pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS))
    whole = ("contrast_agent", "motion_grade", "rater_1", "rater_2", "consensus")
    for column in (*whole, "straight_reject", "fold"):
        table[column] = table[column].astype("Int64")
    text = ("scan_id", "participant_id", "source_participant_id", "cohort", "path", "sha256")
    for column in (*text, "sex", "manufacturer", "role"):
        table[column] = table[column].astype("string")
    return table


@pytest.fixture
def tiny_predictions(rng) -> pd.DataFrame:
    """Scores of two models over two folds for the tasks of Tables II and IV; twenty scans each."""
    rows = []
    experiments = (
        ("pretrain/image/2-4/paper", "synthetic", 2.0),
        ("pretrain/kspace/2-4/paper", "synthetic", 1.0),
        ("warehouse/fine_tuned", "mov01vs2", 1.5),
        ("warehouse/research_only", "mov01vs2", 0.3),
    )
    for experiment, task, separation in experiments:
        for fold in range(2):
            for scan in range(20):
                y_true = scan % 2
                score = 1 / (1 + np.exp(-separation * (2 * y_true - 1) - rng.normal()))
                rows.append(
                    {
                        "experiment": experiment,
                        "task": task,
                        "model": "Conv5FC3",
                        "fold": fold,
                        "scan_id": f"sub-{scan:02d}_ses-1",
                        "participant_id": f"sub-{scan:02d}",
                        "y_true": y_true,
                        "score": score,
                        "y_pred": int(score >= 0.5),
                    }
                )
    return pd.DataFrame(rows)


def folder_from(variable: str) -> Path:
    """Folder that an environment variable names; the test is skipped where it is unset."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        pytest.fail(f"{variable} names no folder; expected shared data or nothing")
    return folder


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real scans (``MOTIONLIB_DATA``); skips where they are not at hand."""
    return folder_from("MOTIONLIB_DATA")


@pytest.fixture(scope="session")
def reference_root() -> Path:
    """What other programs computed (``MOTIONLIB_REFERENCE``); skips where it is not at hand."""
    return folder_from("MOTIONLIB_REFERENCE")


@pytest.fixture(scope="session")
def left_aside():
    """Name that a file has which a process, dead by now, was writing."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return lambda name: f".{files._host()}-{done.pid:x}-0a1b2c3d.{name}"
