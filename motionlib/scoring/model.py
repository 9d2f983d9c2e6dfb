"""A model that scores: what its network is given, and how its logit becomes a decision.

A model folder holds ``weights.safetensors`` and ``model.json``. From a scan to a decision:

1. `model_input` places the head on the study grid and scales it; `images.zscore` comes last.
2. The network gives a logit (`motionlib.scoring.score`).
3. A `DecisionRule` calibrates it to a probability of motion, and says grade and decision.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from motionlib import __version__
from motionlib.files import PACKAGE, code_key, content_key, read_json, sha256_file
from motionlib.preprocess.grid import (
    Grid,
    place_on_grid,
    resample_to_grid,
    scaled_to_one,
    slab_grid,
)
from motionlib.preprocess.head import HeadPlace, air_at_zero
from motionlib.preprocess.images import array3

KEEP, REVIEW, EXCLUDE = "keep", "review", "exclude"
DIGITS = 6  # of a probability
SOURCES = (  # whatever a decision depends on; results of other code are not taken for its own
    *("preprocess", "networks", "training/checkpoints.py", "iqms/air.py"),
    *("scoring/check.py", "scoring/model.py", "scoring/score.py"),
)
FOLDER = "model"
LEAST_SITE, DOUBT, MARGIN = 20, 0.1, 2.0  # scans; share of still ones; see `rule_of_site`
HEAD, FULL = 0.12, 0.9  # of the 98th percentile: brighter voxels are the head's; share at most
LEAST_MM2 = 4000.0  # of a head in a plane, as in `head.find_head`


@dataclass(frozen=True)
class DecisionRule:
    """How a model's logits become decisions, as its folder says."""

    name: str  # for the table: the model's name, or network and key
    key: str  # changes with the weights, the description and the code that prepares scans
    spacing_mm: float  # of the study grid
    slab_mm: float | None  # of the midsagittal planes that the network sees; None: the whole grid
    field_mm: tuple[float, float, float] | None  # of a grid larger than the study's; None: that one
    threshold: float  # motion from this probability on
    temperature: float  # p = sigmoid(logit / temperature + bias)
    bias: float
    review: tuple[float, float] | None  # probabilities in this closed range go to review
    grade_thresholds: tuple[float, float] | None  # from these on the grade is 1, and 2
    knows_stripped: bool  # whether heads without skull were in its training
    facts: dict[str, Any]  # all of model.json
    site: str = ""  # how the range of doubt was set by scans of a site, or why it was not

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

    def in_doubt(self, p: float) -> bool:
        """Whether a probability lies in the model's range of doubt."""
        return self.review is not None and self.review[0] <= p <= self.review[1]

    def decision(self, p: float | None) -> str:
        """``review`` without a probability or in the range of doubt, else by the threshold."""
        if p is None or self.in_doubt(p):
            return REVIEW
        return EXCLUDE if p >= self.threshold else KEEP


def default_model() -> Path:
    """Folder of the shipped model; `FileNotFoundError` if this installation has none."""
    folder = PACKAGE / FOLDER
    if not (folder / "model.json").is_file():
        raise FileNotFoundError(
            "this installation has no shipped model; name a model folder with --model DIR "
            "(motionlib finetune and make model write one)"
        )
    return folder


def read_rule(folder: str | os.PathLike) -> DecisionRule:
    """Read and check the decision rule of a model folder."""
    folder = Path(folder)
    for name in ("model.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; expected a model folder with model.json and "
                "weights.safetensors (pickles are not read)"
            )
    facts = read_json(folder / "model.json")
    weights = sha256_file(folder / "weights.safetensors")
    key = content_key(weights, facts, __version__, code_key(*SOURCES))
    return decision_rule(facts, folder.name, key)


def decision_rule(facts: dict[str, Any], folder: str, key: str = "") -> DecisionRule:
    """Check the description of a model, of which `folder` is the name, and make its rule."""
    try:
        return _decision_rule(facts, folder, key)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"model.json of {folder} has a value of a wrong kind: {error}.") from error


def _decision_rule(facts: dict[str, Any], folder: str, key: str) -> DecisionRule:
    """Make the rule, or raise whatever a value of a wrong kind raises."""
    needed = ("network", "shape", "n_classes", "dropout", "options", "threshold", "voxel_mm")
    missing = [name for name in needed if not isinstance(facts, dict) or name not in facts]
    if missing:
        raise ValueError(
            f"model.json of {folder} lacks {', '.join(missing)}; expected a model that was "
            "made for scoring, by motionlib finetune or make model"
        )
    spacing_mm = _number(folder, facts, "voxel_mm", 0.25, 20)
    slab_mm, field_mm = facts.get("slab_mm"), facts.get("field_mm")
    field_mm = field_mm and tuple(map(float, field_mm))
    shape = model_grid(spacing_mm, slab_mm, field_mm).shape
    if tuple(facts["shape"]) != shape:
        raise ValueError(
            f"the model {folder} takes {tuple(facts['shape'])} voxels where the grid of "
            f"{spacing_mm:g} mm has {shape}: shape and voxel size contradict; give the voxel size "
            "that it was trained on"
        )
    calibration = facts.get("calibration") or {}
    return DecisionRule(
        name=str(facts.get("name") or f"{facts['network']}-{facts.get('key') or key}"),
        key=key,
        spacing_mm=spacing_mm,
        slab_mm=slab_mm,
        field_mm=field_mm,
        threshold=_number(folder, facts, "threshold", 0, 1),
        temperature=_number(folder, {"temperature": 1.0} | calibration, "temperature", 1e-3, 1e3),
        bias=_number(folder, {"bias": 0.0} | calibration, "bias", -1e3, 1e3),
        review=_range(folder, facts, "review"),
        grade_thresholds=_range(folder, facts, "grade_thresholds"),
        knows_stripped=bool(facts.get("stripped_seen", False)),
        facts=facts,
    )


def rule_of_site(rule: DecisionRule, logits: list[float]) -> DecisionRule:
    """Set the range of doubt by scans of a site that nobody has graded, most of them still.

    Scanners differ in the level of the log-odds far more than still scans of one scanner do. The
    median and the lower half's spread (to the 10 % quantile) of the site's scans tell where `DOUBT`
    of the still ones would lie higher, were they normal; `MARGIN` is for the error of both. Moved
    scans lie above and shift the median only: were a quarter of them moved, fewer still ones are
    doubted. From the limit to the model's own threshold a scan goes to review, and from the higher
    of both on it is excluded. Fewer than `LEAST_SITE` scans set nothing; `site` says so.
    """
    n = len(logits)
    if n < LEAST_SITE:
        return replace(
            rule,
            site=f"Found {n} scans of the site that can be scored without a remark, expected at "
            f"least {LEAST_SITE}: no limit of the site is set, the model's own stand.",
        )
    low, middle = np.quantile(logits, [0.1, 0.5])
    spread = (middle - low) / norm.isf(0.1)
    limit = rule.probability(middle + (norm.isf(DOUBT) + MARGIN / math.sqrt(n)) * spread)
    threshold = max(limit, rule.threshold)
    return replace(
        rule,
        threshold=threshold,
        review=(limit, threshold),
        site=f"Range of doubt from {limit:g} on, by {n} ungraded scans of the site: about "
        f"{DOUBT:.0%} of its still scans lie above, fewer if some of the {n} moved.",
    )


def model_input(
    volume,
    affine,
    spacing_mm: float,
    slab_mm: float | None = None,
    field_mm=None,
    *,
    place: HeadPlace | None = None,
) -> np.ndarray:
    """Place a head on the model's grid, without registration, and scale it to about one.

    `volume`, (1, I, J, K) or (I, J, K), and `affine` are those of `images.read_array`. The result,
    float16 of the shape of `model_grid`, is to the bit what the study keeps of the same scan on its
    grid; a test compares them. With the head's `place` the air lies at zero already.
    `ValueError` if no head is found.
    """
    volume = volume if place else air_at_zero(volume)  # what lies below the air is noise
    if field_mm is not None:  # where the air counts, a real part's is ghosts, not noise
        volume = np.abs(array3(volume))
    return place_on_grid(volume, affine, model_grid(spacing_mm, slab_mm, field_mm), place=place)


def plane_input(volume, affine, axis: int, spacing_mm: float, field_mm=None) -> np.ndarray:
    """Place the planes of a slab, or of a 2-D protocol, about the head's middle in the planes.

    `axis` is the one across the planes, along which they stay as they are unless they are finer
    than the grid. Arguments, field in the planes and values are those of `model_input`.
    """
    array = np.abs(array3(air_at_zero(volume)))
    head = array > HEAD * np.percentile(array, 98)
    side = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    each = head.mean(tuple(other for other in range(3) if other != axis))  # of every plane
    area_mm2 = each.max() * array[(slice(None),) * axis + (0,)].size * np.delete(side, axis).prod()
    if area_mm2 < LEAST_MM2 or head.mean() > FULL:
        raise ValueError("no plane shows a head that stands out from the air")
    inside = np.argwhere(head)
    middle = (inside.min(0) + inside.max(0)) / 2
    middle[axis] = (array.shape[axis] - 1) / 2
    steps, shape = np.full(3, spacing_mm), list(model_grid(spacing_mm, None, field_mm).shape)
    steps[axis] = max(spacing_mm, side[axis])
    shape[axis] = max(1, int(array.shape[axis] * side[axis] / steps[axis] + 1e-6))
    matrix = np.diag([*steps, 1.0])
    matrix[:3, 3] = middle * side - (np.array(shape) - 1) / 2 * steps
    grid = Grid(tuple(shape), tuple(map(tuple, matrix.tolist())))
    return scaled_to_one(resample_to_grid(array, np.diag([*side, 1.0]), grid))


def model_grid(spacing_mm: float, slab_mm: float | None = None, field_mm=None) -> Grid:
    """`slab_grid`, or a grid of another field than the study's about the same centre.

    `field_mm` is three lengths; the study's 169 x 208 x 179 show little of the air.
    """
    grid = slab_grid(spacing_mm, slab_mm)
    if field_mm is None:
        return grid
    shape = tuple(round(mm / spacing_mm) for mm in field_mm)
    if len(shape) != 3 or not 8 <= min(shape) <= max(shape) <= 1000 or slab_mm is not None:
        raise ValueError(
            f"a field of {field_mm} mm cannot be; expected three lengths in mm, and no slab"
        )
    affine = grid.matrix
    affine[:3, 3] -= spacing_mm * (np.array(shape) - grid.shape) / 2
    return Grid(shape, tuple(map(tuple, affine.tolist())))


def _number(folder: str, facts: dict, name: str, low: float, high: float) -> float:
    """One number of ``model.json`` within its limits."""
    value = facts[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} of the model {folder} is {value!r}; expected {low:g} to {high:g}")
    return float(value)


def _range(folder: str, facts: dict, name: str) -> tuple[float, float] | None:
    """Two increasing probabilities of ``model.json``, or None."""
    value = facts.get(name)
    if value is None:
        return None
    numbers = isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)
    if not numbers or len(value) != 2 or not 0 <= value[0] <= value[1] <= 1:
        raise ValueError(
            f"{name} of the model {folder} is {value!r}; expected two numbers, 0 <= low <= high <= "
            "1"
        )
    return float(value[0]), float(value[1])
