"""A model's description and a logit go in; probability, grade and decision come out."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionlib import __version__
from motionlib.files import code_key, content_key, read_json, sha256_file
from motionlib.scoring.modelinput import slab_grid

KEEP, REVIEW, EXCLUDE = "keep", "review", "exclude"
DIGITS = 6  # of a probability
SOURCES = ("preprocess", "networks", "scoring")


@dataclass(frozen=True)
class Judge:
    """What a model folder says about turning logits into decisions.

    Attributes
    ----------
    name : str
        Of the model, for the table: its ``name``, or network and key.
    key : str
        Changes with the weights, the description and the code that prepares scans.
    spacing_mm : float
        Of the study grid.
    slab_mm : float, or None
        Thickness of the midsagittal slab that the network sees; None: the whole grid.
    threshold : float
        Motion from this probability on.
    temperature, bias : float
        ``p = sigmoid(logit / temperature + bias)``.
    review : tuple of 2 float, or None
        Probabilities in this closed range go to review.
    grade_thresholds : tuple of 2 float, or None
        From these probabilities on the grade is 1, and 2; None: the model gives no grade.
    knows_stripped : bool
        Whether heads without skull were in its training (``stripped_seen``).
    facts : dict
        All of ``model.json``.
    """

    name: str
    key: str
    spacing_mm: float
    slab_mm: float | None
    threshold: float
    temperature: float
    bias: float
    review: tuple[float, float] | None
    grade_thresholds: tuple[float, float] | None
    knows_stripped: bool
    facts: dict[str, Any]

    def probability(self, logit: float) -> float:
        """Calibrated probability of motion, to `DIGITS` digits."""
        z = logit / self.temperature + self.bias
        p = 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
        return round(p, DIGITS)

    def grade(self, p: float) -> int | None:
        """Grade 0, 1 or 2; None where the model has no limits for grades."""
        if self.grade_thresholds is None:
            return None
        return sum(p >= limit for limit in self.grade_thresholds)

    def decision(self, p: float | None) -> str:
        """``review`` without a probability or in the range of doubt, else by the threshold."""
        if p is None or (self.review is not None and self.review[0] <= p <= self.review[1]):
            return REVIEW
        return EXCLUDE if p >= self.threshold else KEEP


def read_judge(folder: str | os.PathLike) -> Judge:
    """Read a model folder's rules for decisions.

    Raises
    ------
    FileNotFoundError
        If ``model.json`` or ``weights.safetensors`` is not there.
    ValueError
        If the description lacks what scoring needs, or contradicts itself.
    """
    folder = Path(folder)
    for name in ("model.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; expected a model folder with model.json and "
                "weights.safetensors (pickles are not read)"
            )
    try:
        facts = read_json(folder / "model.json")
    except ValueError as error:
        raise ValueError(f"model.json of {folder.name} is no JSON: {error}") from error
    needed = ("network", "shape", "n_classes", "dropout", "options", "threshold", "voxel_mm")
    missing = [name for name in needed if not isinstance(facts, dict) or name not in facts]
    if missing:
        raise ValueError(
            f"model.json of {folder.name} lacks {', '.join(missing)}; expected a model that was "
            "made for scoring, by motionlib finetune or make model"
        )
    spacing_mm = _number(folder, facts, "voxel_mm", 0.25, 20)
    slab_mm = facts.get("slab_mm")
    shape = slab_grid(spacing_mm, slab_mm).shape
    if tuple(facts["shape"]) != shape:
        raise ValueError(
            f"the model {folder.name} takes {tuple(facts['shape'])} voxels where the grid of "
            f"{spacing_mm:g} mm has {shape}; shape and voxel_mm of its model.json contradict"
        )
    calibration = facts.get("calibration") or {}
    key = content_key(
        sha256_file(folder / "weights.safetensors"), facts, __version__, code_key(*SOURCES)
    )
    return Judge(
        name=str(facts.get("name") or f"{facts['network']}-{facts.get('key') or key}"),
        key=key,
        spacing_mm=spacing_mm,
        slab_mm=slab_mm,
        threshold=_number(folder, facts, "threshold", 0, 1),
        temperature=_number(folder, {"temperature": 1.0} | calibration, "temperature", 1e-3, 1e3),
        bias=_number(folder, {"bias": 0.0} | calibration, "bias", -1e3, 1e3),
        review=_range(folder, facts, "review"),
        grade_thresholds=_range(folder, facts, "grade_thresholds"),
        knows_stripped=bool(facts.get("stripped_seen", False)),
        facts=facts,
    )


def _number(folder: Path, facts: dict, name: str, low: float, high: float) -> float:
    """One number of ``model.json`` within its limits."""
    value = facts[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(
            f"{name} of the model {folder.name} is {value!r}; expected {low:g} to {high:g}"
        )
    return float(value)


def _range(folder: Path, facts: dict, name: str) -> tuple[float, float] | None:
    """Two increasing probabilities of ``model.json``, or None."""
    value = facts.get(name)
    if value is None:
        return None
    numbers = isinstance(value, list | tuple) and len(value) == 2
    if not numbers or not all(isinstance(v, int | float) for v in value):
        raise ValueError(f"{name} of the model {folder.name} is {value!r}; expected two numbers")
    if not 0 <= value[0] <= value[1] <= 1:
        raise ValueError(
            f"{name} of the model {folder.name} is {value!r}; expected 0 <= low <= high <= 1"
        )
    return float(value[0]), float(value[1])
