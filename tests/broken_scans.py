"""A BIDS folder of forty scans as they come: twenty good ones, and twenty that are none."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from scoring_set import head

N_GOOD = 20
# A word of the reason that each must have; the first fifteen are seen in the header alone.
IN_THE_HEADER = {
    "empty": "0 bytes",
    "text": "cannot be read",
    "rgb": "one real number",
    "complex": "one real number",
    "series": "three dimensions",
    "flat": "at least 8 voxels",
    "link": "a link to nothing",
    "folder": "no regular file",
    "pipe": "no regular file",
    "huge": "more than",
    "axes": "no orientation",
    "quaternion": "quaternion has the length",
    "singular": "three independent axes",
    "coarse": "0.05 to 20 mm",
    "format": "begin with the size",
}
IN_THE_VOXELS = {
    "half": "cannot be read",
    "checksum": "cannot be read",
    "raw": "ends too early",
    "nan": "finite",
    "infinite": "finite",
}
HEADER_BYTES = {  # of NIfTI-1: offset, type, values
    "huge": [(42, "<i2", [3000, 3000, 3000])],
    "axes": [(252, "<i2", [0, 0])],  # qform and sform code
    "quaternion": [(252, "<i2", [1, 0]), (256, "<f4", [2.0])],
    "singular": [(280, "<f4", [4.0, 4, 0, -86, 4, 4, 0, -128])],  # srow_x and srow_y
    "coarse": [(280, "<f4", [40.0])],  # srow_x
}
REASONS = IN_THE_HEADER | IN_THE_VOXELS


def write_forty(root: Path) -> Path:
    """Write the folder: ``sub-good00`` to ``sub-good19``, and one subject a way to be broken."""
    for number in range(N_GOOD):
        array, affine = head(number, moved=number % 2 == 1)
        nib.save(_image(array, affine), _place(root, f"good{number:02d}"))
    array, affine = head(99)
    whole = gzip.compress(_image(array, affine).to_bytes(), 1, mtime=0)
    for way in REASONS:
        _break(way, array, affine, whole, _place(root, way))
    (root / "participants.tsv").write_text("participant_id\tage\nsub-good00\t89+\n")
    return root


def _place(root: Path, subject: str) -> Path:
    """Path of a subject's scan, its folder made."""
    path = root / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    return path


def _image(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """Whole numbers, as most scans have."""
    return nib.Nifti1Image(array.astype(np.int16), affine)


def _break(way: str, array: np.ndarray, affine: np.ndarray, whole: bytes, path: Path) -> None:
    """Write one scan that is broken in the way named."""
    if way in ("empty", "text", "half", "checksum", "format"):
        flipped = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]  # of the gzip's checksum
        contents = {"empty": b"", "text": b"no image at all\n", "half": whole[: len(whole) // 2]}
        contents |= {"checksum": flipped, "format": gzip.compress(b"DICM" * 200)}
        path.write_bytes(contents[way])
    elif way == "link":
        path.symlink_to(".git/annex/objects/away")
    elif way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "raw":
        (path.parent / path.name[:-3]).write_bytes(gzip.decompress(whole)[:-5000])
    else:
        content = bytearray(_strange(way, array, affine).to_bytes())
        for offset, kind, values in HEADER_BYTES.get(way, ()):
            changed = np.array(values, kind).tobytes()
            content[offset : offset + len(changed)] = changed
        path.write_bytes(gzip.compress(bytes(content), 1, mtime=0))


def _strange(way: str, array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """A head whose header or values are no scan's."""
    if way == "rgb":
        colours = np.zeros(array.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
        return nib.Nifti1Image(colours, affine)
    if way == "complex":
        return nib.Nifti1Image(array.astype(np.complex64), affine)
    if way == "series":
        return nib.Nifti1Image(np.repeat(array[..., None], 3, axis=3), affine)
    if way == "flat":
        return nib.Nifti1Image(array[:, :, 20:21], affine)
    if way in ("nan", "infinite"):
        values = array.copy()
        values[20:24] = np.nan if way == "nan" else np.inf
        return nib.Nifti1Image(values, affine)
    return _image(array, affine)
