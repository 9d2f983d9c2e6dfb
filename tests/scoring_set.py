"""Small heads, broken files, a tiny model folder, and the reader of the pages about them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np

from motionlib.files import write_json
from motionlib.preprocess.images import save_volume
from motionlib.scoring.model import model_grid

SPACING_MM = 16.0
HEAD_SHAPE = (44, 56, 52)
HEAD_MM = 4.0


def head(seed: int = 0, *, moved: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Place the MNI152 brain in skull and scalp, 4 mm voxels, and give it noise of its own."""
    from motionlib.preprocess.grid import Grid, resample_to_grid
    from motionlib.preprocess.registration import load_target

    target = load_target("whole-head")
    affine = np.diag([HEAD_MM] * 3 + [1.0])
    affine[:3, 3] = (-86.0, -128.0, -104.0)
    array = resample_to_grid(
        target.array, target.affine, Grid(HEAD_SHAPE, tuple(map(tuple, affine.tolist())))
    )
    rng = np.random.default_rng(seed)
    array = array / array.max() * 900 * rng.uniform(0.9, 1.1)
    if moved:
        array = 0.5 * (array + np.roll(array, 5, axis=1))
    return np.abs(array + rng.normal(0, 8, array.shape)).astype(np.float32), affine


def write_heads(folder: Path, count: int, *, graded: bool = False) -> list[Path]:
    """Write heads as ``.nii.gz``; graded ones are moved every second time."""
    paths = []
    for number in range(count):
        array, affine = head(number, moved=graded and number % 2 == 1)
        path = folder / f"scan-{number:02d}_T1w.nii.gz"
        paths.append(save_volume(array, affine, path, dtype="int16"))
    return paths


def write_broken(folder: Path) -> dict[str, str]:
    """Write eight files that cannot be scored, each in its own way; a word of each reason."""
    array, affine = head(99)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty_T1w.nii.gz").write_bytes(b"")
    (folder / "text_T1w.nii.gz").write_text("no image at all\n")
    whole = save_volume(array, affine, folder / "half_T1w.nii.gz").read_bytes()
    (folder / "half_T1w.nii.gz").write_bytes(whole[: len(whole) // 2])
    save_volume(np.full(array.shape, 7.0), affine, folder / "constant_T1w.nii.gz")
    bad = array.copy()
    bad[20:24] = np.nan
    nib.save(nib.Nifti1Image(bad, affine), folder / "nan_T1w.nii.gz")
    series = np.repeat(array[..., None], 3, axis=3)
    nib.save(nib.Nifti1Image(series, affine), folder / "series_T1w.nii.gz")
    save_volume(array[:, :, 26:], affine, folder / "cut_T1w.nii.gz")
    noise = np.random.default_rng(0).normal(100, 5, array.shape)
    save_volume(noise, affine, folder / "noise_T1w.nii.gz")
    return {
        "empty_T1w": "0 bytes",
        "text_T1w": "cannot be read",
        "half_T1w": "cannot be read",
        "constant_T1w": "constant",
        "nan_T1w": "not finite",
        "series_T1w": "three dimensions",
        "cut_T1w": "cut",
        "noise_T1w": "no head",
    }


def write_model(folder: Path, *, spacing_mm: float = SPACING_MM, **changes) -> Path:
    """Write a model folder with fresh weights; `changes` go into ``model.json``."""
    import torch
    from safetensors.torch import save_file

    from motionlib.networks import build_network

    shape = model_grid(spacing_mm, None, changes.get("field_mm")).shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind, options = changes.get("network", "Conv5FC3"), changes.get("options", {})
        network = build_network(kind, shape, **options)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    facts = {
        "key": "fresh",
        "network": "Conv5FC3",
        "shape": list(shape),
        "n_classes": 2,
        "dropout": None,
        "options": {},
        "preprocessing": "z-score of the whole volume",
        "task": "synthetic",
        "threshold": 0.5,
        "calibration": None,
        "cohort": "nothing: fresh weights",
        "voxel_mm": spacing_mm,
        "review": None,
        "card": "CARD.md",
    }
    write_json(folder / "model.json", facts | changes)
    return folder


class Page(HTMLParser):
    """What a page shows and loads: images, rows of tables, headings, sources."""

    def __init__(self, text: str):
        super().__init__()
        self.images, self.heads, self.headings, self.loads, self.captions = [], [], [], [], 0
        self.tables, self.rows, self._in_cell = 0, [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [found[name] for name in ("src", "srcset", "data") if name in found]
        self.loads += [found["href"]] if tag == "link" else []
        self.images += [found] if tag == "img" else []
        self.heads += [found] if tag == "th" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.tables += tag == "table"
        self.captions += tag == "table" and "aria-labelledby" in found
        self.rows += [[]] if tag == "tr" else []
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][-1] += data
