"""Scoring: the probability of motion of every scan, or the reason why it has none.

Scans are read one after the other and forgotten: memory does not grow with their number. Every
scan is scored alone on a CPU and in batches of one fixed size on a GPU, so that no digit depends
on which scans stand beside it. What is finished stands in a journal beside the table, so that a
call that was interrupted goes on where it was, and a repeated one reads only what is new.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from motionlib import compute
from motionlib.compute.engines import Meter, in_words
from motionlib.files import anonymous, as_cell, check_file, content_key, identity, write_text
from motionlib.iqms.air import air_spread
from motionlib.preprocess.finder import faults_of
from motionlib.preprocess.head import air_at_zero, has_noise_for_air
from motionlib.preprocess.images import read_array, zscore
from motionlib.scoring.check import Check, check_planes, check_scan
from motionlib.scoring.model import (
    REVIEW,
    DecisionRule,
    model_input,
    plane_input,
    read_rule,
    rule_of_site,
)

COLUMNS = (
    *("scan_id", "p_motion", "grade", "decision", "abstained", "reason", "model", "threshold"),
    "air_spread",
)
DEVICES = ("cpu", "cuda", "auto")
BATCH_SIZE = 16
CHUNK = 16  # scans between two writes to the journal; a kill costs at most these
ENGINE_CHUNK = 96  # with workers, which all wait at the end of a chunk

MP2RAGE = (
    "no head stands out from the air, which is as bright and as dark as one; of a uniform MP2RAGE "
    "image give the version whose background is denoised"
)
REGISTERED = (
    "it lies on the grid of the MNI152 template, to which it was registered; the model has seen no "
    "such head, and takes the enlarged and smoothed tissue for motion: give the scan as acquired"
)


def score_scans(
    scans: list[tuple[str, str]],
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    site: list[tuple[str, str]] | None = None,
    device: str = "cpu",
    engine: str = "inline",
    batch_size: int = BATCH_SIZE,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Score scans and write the table.

    Parameters
    ----------
    scans : list of (str, str)
        Id and path, from `preprocess.finder.find_scans`.
    model : path-like
        Model folder.
    out : path-like
        Table to write, ``.tsv``. Beside it ``<out>.journal`` keeps what is finished; a repeated
        call reads only scans that are new or have changed.
    site : list of (str, str), optional
        Ungraded scans of the same scanner and protocol, mostly still, that set the limit from which
        on a scan is doubted (`model.rule_of_site`).
    device : {"cpu", "cuda", "auto"}
        Where the network computes.
    engine : str
        Where scans are read (and, on the CPU, scored); see `motionlib.compute.engines.submit`.
    batch_size : int, default=16
        Scans a forward pass on a GPU.
    progress : callable, optional
        Called with a line of text from time to time.

    Returns
    -------
    list of dict
        One row a scan in the order of `scans`, with the keys of `COLUMNS`, ``path``, and the
        ``rule`` that decided.

    Raises
    ------
    ValueError
        If model, device, engine or table name are not usable; never because of a scan.
    """
    out, device = Path(out), _device(device)
    if out.suffix != ".tsv":
        raise ValueError(f"{out.name} does not end in .tsv; the scores are a tab-separated table")
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; expected at least 1")
    rule = read_rule(model)
    network = _network(str(model), rule.key, device)  # a wrong model is told before any scan
    work = {"model": str(model), "rule": rule, "network": network, "device": device}
    work |= {"engine": engine, "batch_size": batch_size, "progress": progress}
    journal = Journal(f"{out}.journal")
    results = _examine_all(scans, journal, **work)
    if site is not None:
        known = _examine_all(site, journal, **work)
        known = [r["logit"] for r in known if not r["fault"] and not r["note"]]
        rule = rule_of_site(rule, known)
        if progress:
            progress(rule.site)
    # 3. Decide, and write the table.
    rows = [
        _row(scan_id, path, result, rule)
        for (scan_id, path), result in zip(scans, results, strict=True)
    ]
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(_cell(name, row[name]) for name in COLUMNS) for row in rows]
    write_text(out, "\n".join(lines) + "\n")
    return rows


def plan_scores(scans, model, out, *, device: str = "cpu") -> dict[str, int]:
    """Count what `score_scans` would do with scans, and do nothing.

    ``to read``; ``scored`` or ``without score`` by an earlier call; ``not there``, or empty;
    ``refused`` for its row or its id.
    """
    journal = Journal(f"{out}.journal")
    keys, results = _known(scans, journal, read_rule(model).key, _device(device), plan=True)
    counts = dict.fromkeys(("to read", "scored", "without score", "not there", "refused"), 0)
    for key, result in zip(keys, results, strict=True):
        if result is None:
            counts["to read" if key else "not there"] += 1
        elif key in journal.entries:
            counts["without score" if result["fault"] else "scored"] += 1
        else:
            counts["refused"] += 1
    return counts


def _known(scans, journal: Journal, model_key: str, device: str, plan=False) -> tuple[list, list]:
    """Keys of scans as they are now, and what an earlier call has found of each, or None.

    For a `plan` and an empty journal no file need be opened: it is there, or it is not.
    """
    if plan and not journal.entries:
        keys = [path if path and os.path.isfile(path) else None for _, path in scans]
    else:
        keys = [file_key(path, model_key, device) for _, path in scans]
    results: list[dict | None] = [journal.entries.get(key) if key else None for key in keys]
    for place, fault in enumerate(faults_of(scans)):
        if fault:
            keys[place], results[place] = None, {"fault": fault, "note": "", "air": None}
    return keys, results


def _examine_all(
    scans, journal: Journal, *, model, rule, network, device, engine, batch_size, progress
) -> list[dict[str, Any]]:
    """Examine scans, or read in the journal what an earlier call has found."""
    # 1. Take from the journal what an earlier call has finished.
    keys, results = _known(scans, journal, rule.key, device)
    waiting = [place for place, result in enumerate(results) if result is None]
    # 2. Examine the others, chunk by chunk; a GPU gets whole batches.
    meter = Meter("score", len(waiting), progress)
    size = CHUNK if engine == "inline" else ENGINE_CHUNK
    if device == "cuda":
        size = -(-size // batch_size) * batch_size
    for first in range(0, len(waiting), size):
        places = waiting[first : first + size]
        items = [(scans[place][1], model, rule.key, device) for place in places]
        examined = compute.submit(examine, items, engine=engine, label="score")
        if device == "cuda":
            _forward(network, examined, batch_size)
        finished = {}
        for place, result in zip(places, examined, strict=True):
            if isinstance(result, compute.Failure):  # a worker was lost: the next call tries again
                fault = f"it could not be processed: {anonymous(result.error, scans[place][1])}"
                results[place] = {"fault": fault, "note": "", "air": None}
            else:
                results[place] = result
                if keys[place]:
                    finished[keys[place]] = result
            meter.count(result)
        journal.add(finished)
    return results


def examine(item: tuple[str, str, str, str]) -> dict[str, Any]:
    """Read, check and prepare one scan (a task); on the CPU score it too.

    `item` holds path, model folder, its key and the device. The result has ``fault`` (why there is
    no score, or empty), ``note``, ``air``, and ``logit`` (CPU) or ``array`` (GPU).
    """
    path, model, key, device = item
    rule = _rule(model, key)
    array, check, air = prepare(path, rule, planes=rule.facts["network"] == "Slices")
    result = {"fault": check.fault, "note": check.note, "air": air, "logit": None}
    if check.registered and not rule.facts.get("registered_seen"):
        result["fault"] = REGISTERED
    if result["fault"]:
        return result
    x = array.astype(np.float32)[None, None]
    if check.axis is not None:  # scans of planes differ in shape: one at a time
        return result | {"logit": float(_logits(_network(model, key, "cpu"), x, check.axis)[0])}
    if device == "cuda":
        return result | {"array": array}
    return result | {"logit": float(_logits(_network(model, key, device), zscore(x))[0])}


def prepare(
    path: str, rule: DecisionRule, *, planes: bool = False
) -> tuple[np.ndarray | None, Check, float | None]:
    """Read and check a scan and make the network's input of it; without one, `Check` says why.

    `rule` tells the model's grid. With `planes` slabs and 2-D protocols are taken too
    (`check_planes`). The last is `air_spread`, None where the scan is refused or holds no air.
    """
    spacing_mm, field_mm = rule.spacing_mm, rule.field_mm
    try:
        check_file(Path(path))
        volume, affine = read_array(path, planes=planes)
        few = check_planes(volume, affine, spacing_mm=spacing_mm) if planes else None
        if few:
            return plane_input(volume, affine, few.axis, spacing_mm, field_mm), few, None
        if has_noise_for_air(volume):
            return None, Check(MP2RAGE), None
        volume = air_at_zero(volume)
        check = check_scan(
            volume, affine, spacing_mm=spacing_mm, knows_stripped=rule.knows_stripped
        )
        if check.fault:
            return None, check, None
        # of a volume with values below zero the input is of another head, by a hair
        place = check.head if volume.min() >= 0 else None
        array = model_input(volume, affine, spacing_mm, rule.slab_mm, field_mm, place=place)
        if array.min() == array.max():
            zscore(array.astype(np.float32))  # which says so
    except (ValueError, FileNotFoundError, MemoryError) as error:
        return None, Check(anonymous(in_words(error), path)), None
    air = None
    with suppress(ValueError):
        air = air_spread(volume, affine)
    return array, check, air


def _row(scan_id: str, path: str, result: dict[str, Any], rule: DecisionRule) -> dict[str, Any]:
    """Turn a result into a row: decide, and say why.

    ``abstained`` is true where there is no probability. One in the range of doubt, or with a remark
    on what the model has not seen, is given, and the scan sent to review.
    """
    fault = result["fault"]
    if not fault and not np.isfinite(result["logit"]):
        fault = "the network gives no finite number for it"
    p = None if fault else rule.probability(result["logit"])
    reasons = [fault or result["note"]]
    if p is not None and rule.in_doubt(p):
        low, high = rule.review
        whose = "model" if list(rule.review) == rule.facts.get("review") else "site"
        reasons.append(f"its probability lies in the {whose}'s range of doubt, {low:g} to {high:g}")
    return {
        "scan_id": scan_id,
        "p_motion": p,
        "grade": None if p is None else rule.grade(p),
        "decision": REVIEW if result["note"] else rule.decision(p),
        "abstained": bool(fault),
        "reason": "; ".join(filter(None, reasons)),
        "model": rule.name,
        "threshold": rule.threshold,
        "air_spread": None if fault else result["air"],
        "path": path,
        "rule": rule,
    }


def _cell(name: str, value: Any) -> str:
    """One cell as text, without tabs and line breaks."""
    if value is None:
        return ""
    if name == "abstained":
        return "true" if value else "false"
    if name == "p_motion":
        return f"{value:.6f}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return as_cell(text).encode("utf-8", "replace").decode()


def _device(device: str) -> str:
    """Resolve ``auto``; refuse a GPU that is not there."""
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}; expected one of {', '.join(DEVICES)}")
    if device == "cpu":
        return device
    import torch

    has = torch.cuda.is_available()
    if device == "cuda" and not has:
        raise ValueError("device is cuda and torch sees no GPU; give --device cpu or auto")
    return "cuda" if has else "cpu"


@lru_cache(maxsize=2)
def _rule(model: str, key: str) -> DecisionRule:
    """Rule of a model folder, read once a process; the key tells changed folders apart."""
    return read_rule(model)


@lru_cache(maxsize=2)
def _network(model: str, key: str, device: str):
    """Network of a model folder, read once a process."""
    from motionlib.training.checkpoints import load_model

    return load_model(model, device=device).network


def _logits(network, volumes: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Log-odds of motion for volumes (B, 1, I, J, K), or their planes across an axis, (B,)."""
    import torch

    device = next(network.parameters()).device
    with compute.configure_cpu(), torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(volumes)).to(device)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        classes = (network(x) if axis is None else network.across(x, axis)).double().cpu()
        return (classes[:, -1] - classes[:, :-1].logsumexp(1)).numpy()


def _forward(network, examined: list, batch_size: int) -> None:
    """Score prepared arrays on the GPU, in place; the last batch is filled up with zeros."""
    import torch

    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    ready = [r for r in examined if isinstance(r, dict) and "array" in r]
    for first in range(0, len(ready), batch_size):
        part = ready[first : first + batch_size]
        standard = [zscore(result.pop("array").astype(np.float32)) for result in part]
        batch = np.zeros((batch_size, 1, *standard[0].shape), np.float32)
        batch[: len(part), 0] = standard
        for result, logit in zip(part, _logits(network, batch), strict=False):
            result["logit"] = float(logit)


class Journal:
    """Results appended to a file, a JSON object a line, under the key of what each was made from.

    `entries` holds what was there when it was opened, but for a torn last line, and what was added.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.entries: dict[str, dict[str, Any]] = {}
        self._torn = False
        if self.path.exists():
            content = self.path.read_bytes()
            self._torn = bool(content) and not content.endswith(b"\n")
            for line in content.splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Keep a line if it is whole and its checksum right."""
        try:
            entry = json.loads(line)
            if entry["sum"] == content_key(entry["key"], entry["value"]):  # as it was written
                self.entries[entry["key"]] = entry["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return

    def add(self, entries: dict[str, dict[str, Any]]) -> None:
        """Append results and wait until they are on the disk."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"key": k, "value": v, "sum": content_key(k, v)} for k, v in entries.items()]
        lines = [json.dumps(row) for row in rows]
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write("\n" * self._torn + "\n".join(lines) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._torn = False
        self.entries |= entries


def file_key(path: str | os.PathLike, *parts: Any) -> str | None:
    """Key of a file as it is now (`files.identity`) and of what else a result depends on.

    None where the file cannot be read, so that it is tried again next time.
    """
    try:
        return content_key(*identity(path), *parts, digits=24)
    except (FileNotFoundError, ValueError):
        return None
