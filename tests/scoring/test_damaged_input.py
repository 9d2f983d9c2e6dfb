"""Whatever bytes stand in an image or a table, a reader of the message needs no Python."""

import gzip
import random
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scoring_set import write_model

from motionlib.manifest import read_manifest, usable_rows
from motionlib.motion.on_disk import Motion, corrupt_file
from motionlib.preprocess.finder import find_scans
from motionlib.preprocess.images import read_array
from motionlib.scoring.check import Check
from motionlib.scoring.model import read_rule
from motionlib.scoring.own_scans import read_graded
from motionlib.scoring.score import prepare

CLASS_OF_ERROR = re.compile(r"\b[A-Z]\w*(Error|Exception|Fault)\b|Traceback|NoneType|codec|C error")
HEADER_BYTES = {nib.Nifti1Image: 352, nib.Nifti2Image: 544}


def said(function) -> str:
    """What a call says; only errors that the command line takes for a wrong call may be raised."""
    try:
        result = function()
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return result[1].fault if isinstance(result, tuple) and isinstance(result[1], Check) else ""


def change(content: bytes, first: int, draw: random.Random, signs: list[int]) -> bytes:
    """Change some of the first bytes of a file, or cut it."""
    changed = bytearray(content)
    if draw.random() < 0.2:
        return bytes(changed[: draw.randrange(len(changed))])
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        changed[draw.randrange(first)] = draw.choice([*signs, draw.randrange(256)])
    return bytes(changed)


@pytest.mark.parametrize("kind", HEADER_BYTES)
@pytest.mark.parametrize("is_packed", [False, True])
def test_headers(kind, is_packed, tmp_path, capfd):
    array = np.random.default_rng(0).integers(0, 99, (12, 12, 12)).astype(np.int16)
    whole = kind(array, np.diag([4.0, 4, 4, 1])).to_bytes()
    path = tmp_path / ("x.nii.gz" if is_packed else "x.nii")
    draw = random.Random(7)
    rule = read_rule(write_model(tmp_path / "model", spacing_mm=8.0))
    for _ in range(60):
        content = change(whole, HEADER_BYTES[kind], draw, [0, 1, 0x7F, 0x80, 0xFF])
        path.write_bytes(gzip.compress(content, 1) if is_packed else content)
        for function in (
            lambda: read_array(path),
            lambda: prepare(str(path), rule),
            lambda: corrupt_file(path, tmp_path / "out.nii", Motion()),
        ):
            assert not CLASS_OF_ERROR.search(said(function))
    assert capfd.readouterr().err == ""


def test_a_quaternion_whose_square_no_float_holds(tmp_path):
    image = nib.Nifti2Image(np.zeros((12, 12, 12), np.int16), None)
    image.header["qform_code"], image.header["quatern_b"] = 1, 1e200
    (tmp_path / "x.nii").write_bytes(image.header.binaryblock + bytes(4 + 2 * 12**3))
    assert "cannot be read as an image" in said(lambda: read_array(tmp_path / "x.nii"))


def test_a_file_that_ends_too_early(tmp_path):
    whole = nib.Nifti1Image(np.ones((12, 12, 12), np.int16), np.eye(4)).to_bytes()
    (tmp_path / "x.nii").write_bytes(whole[:-100])
    assert said(lambda: read_array(tmp_path / "x.nii")) == "x.nii ends too early or is damaged."


def test_tables(tmp_path):
    grades = [0, 1, 2, 0, 1, 2, 0, 2]
    names = [f"sub-{number}" for number in range(8)]
    columns = {"scan_id": names, "participant_id": names, "path": names, "motion_grade": grades}
    table = pd.DataFrame(columns | {"rater_1": grades, "cohort": "bids", "age": 30.5, "sex": "F"})
    whole = table.to_csv(sep="\t", index=False).encode()
    path, draw = tmp_path / "m.tsv", random.Random(7)
    for _ in range(25):
        path.write_bytes(change(whole, len(whole), draw, [0, 9, 10, 13, 34, 44, 45, 0xC3, 0xFF]))
        for function in (
            lambda: find_scans([str(path)]),
            lambda: read_graded(path, "mov01vs2"),
            lambda: usable_rows(path),
            lambda: read_manifest(path),
        ):
            assert not CLASS_OF_ERROR.search(said(function))
