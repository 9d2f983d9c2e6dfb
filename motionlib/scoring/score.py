"""Scans and a model folder go in; one row a scan, probability or reason, comes out, resumable.

Scans are read one after the other and forgotten: memory does not grow with their number. Every
scan is scored alone on a CPU and in batches of one fixed size on a GPU, so that no digit depends
on which scans stand beside it or on where an earlier run was interrupted.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from motionlib import compute
from motionlib.files import content_key, write_text
from motionlib.preprocess.images import read_array
from motionlib.scoring.check import check_scan
from motionlib.scoring.model import Judge, model_input, read_judge, standardised

COLUMNS = (
    *("scan_id", "p_motion", "grade", "decision", "abstained", "reason", "model", "threshold"),
)
DEVICES = ("cpu", "cuda", "auto")
BATCH_SIZE = 16
CHUNK = 16  # scans between two writes to the journal; a kill costs at most these
ENGINE_CHUNK = 96  # with workers, which all wait at the end of a chunk


def score_scans(
    scans: list[tuple[str, str]],
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    device: str = "cpu",
    engine: str = "inline",
    batch_size: int = BATCH_SIZE,
    progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Score scans and write the table.

    Parameters
    ----------
    scans : list of (str, str)
        Id and path, from `inputs.find_scans`.
    model : path-like
        Model folder.
    out : path-like
        Table to write, ``.tsv``. Beside it ``<out>.journal`` keeps what is finished; a repeated
        call reads only scans that are new or have changed.
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
        One row a scan in the order of `scans`, with the keys of `COLUMNS`, and ``path``.

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
    judge = read_judge(model)
    network = _network(str(model), judge.key, device)  # a wrong model is told before any scan
    journal = Journal(out.with_name(f"{out.name}.journal"))
    keys = [file_key(path, judge.key, device) for _, path in scans]
    results: list[dict | None] = [journal.found.get(key) if key else None for key in keys]
    waiting = [place for place, result in enumerate(results) if result is None]
    started, done = time.monotonic(), 0
    size = CHUNK if engine == "inline" else ENGINE_CHUNK
    if device == "cuda":
        size = -(-size // batch_size) * batch_size
    for first in range(0, len(waiting), size):
        places = waiting[first : first + size]
        items = [(scans[place][1], str(model), judge.key, device) for place in places]
        found = compute.submit(examine, items, engine=engine, label="score")
        found = [_value(one) for one in found]
        if device == "cuda":
            _forward(network, found, batch_size)
        for place, result in zip(places, found, strict=True):
            results[place] = result
        journal.add(
            {
                keys[place]: results[place]
                for place in places
                if keys[place] and not results[place].pop("again", False)
            }
        )
        done += len(places)
        if progress is not None:
            left_s = (time.monotonic() - started) / done * (len(waiting) - done)
            progress(f"score: {done}/{len(waiting)}, about {left_s:.0f} s left")
    rows = [
        row_of(scan_id, path, result, judge)
        for (scan_id, path), result in zip(scans, results, strict=True)
    ]
    write_text(out, "\n".join(table_lines(rows)) + "\n")
    return rows


def examine(item: tuple[str, str, str, str]) -> dict[str, Any]:
    """Read, check and prepare one scan; on the CPU score it too.

    Parameters
    ----------
    item : (path, model folder, model key, device)
        Plain strings, so that a worker can take them.

    Returns
    -------
    dict
        ``fault`` (why there is no score, or empty), ``note``, and ``logit`` (CPU) or ``array``.
    """
    path, model, key, device = item
    judge = _judge(model, key)
    try:
        volume, affine = read_array(path)
        checked = check_scan(
            volume, affine, spacing_mm=judge.spacing_mm, knows_stripped=judge.knows_stripped
        )
        if checked.fault:
            return {"fault": checked.fault, "note": "", "logit": None}
        array = model_input(volume, affine, judge.spacing_mm, judge.slab_mm)
        standard = standardised(array)
    except (ValueError, FileNotFoundError, MemoryError) as error:
        return {"fault": anonymous(error, path), "note": "", "logit": None}
    if device == "cuda":
        return {"fault": "", "note": checked.note, "logit": None, "array": array}
    logit = float(_logits(_network(model, key, device), standard[None, None])[0])
    if not np.isfinite(logit):
        return {"fault": "the network gives no finite number for it", "note": "", "logit": None}
    return {"fault": "", "note": checked.note, "logit": logit}


def anonymous(error: BaseException, path: str) -> str:
    """Reason in one clause that names no file: its name may tell whose scan it is."""
    text = " ".join((str(error) or type(error).__name__).split())
    for name in (str(path), os.path.abspath(path), Path(path).name):
        text = text.replace(name, "the file")
    return text.rstrip(".")


def row_of(scan_id: str, path: str, result: dict[str, Any], judge: Judge) -> dict[str, Any]:
    """Turn a result into a row: decide, and say why.

    ``abstained`` is true where there is no probability: such a scan is for a person. A probability
    in the model's range of doubt is given, and sent to review. ``grade`` is empty for a model
    without limits for grades.
    """
    abstained = bool(result["fault"])
    p = None if abstained else judge.probability(result["logit"])
    reasons = [result["fault"] or result["note"]]
    if p is not None and judge.review and judge.review[0] <= p <= judge.review[1]:
        low, high = judge.review
        reasons.append(f"its probability lies in the model's range of doubt, {low:g} to {high:g}")
    return {
        "scan_id": scan_id,
        "p_motion": p,
        "grade": None if p is None else judge.grade(p),
        "decision": judge.decision(p),
        "abstained": abstained,
        "reason": "; ".join(filter(None, reasons)),
        "model": judge.name,
        "threshold": judge.threshold,
        "path": path,
    }


def table_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of the table, header first."""
    yield "\t".join(COLUMNS)
    for row in rows:
        yield "\t".join(_cell(name, row[name]) for name in COLUMNS)


def _cell(name: str, value: Any) -> str:
    """One cell as text, without tabs and line breaks."""
    if value is None:
        return ""
    if name == "abstained":
        return "true" if value else "false"
    if name == "p_motion":
        return f"{value:.6f}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return re.sub(r"[\t\r\n]+", " ", text).encode("utf-8", "replace").decode()


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
def _judge(model: str, key: str) -> Judge:
    """Rules of a model folder, read once a process; the key tells changed folders apart."""
    return read_judge(model)


@lru_cache(maxsize=1)
def _network(model: str, key: str, device: str):
    """Read the network of a model folder, once a process."""
    from motionlib.training.checkpoints import load_model

    return load_model(model, device=device).network


def _logits(network, volumes: np.ndarray) -> np.ndarray:
    """Log-odds of motion for volumes (B, 1, I, J, K), shape (B,), float64."""
    import torch

    device = next(network.parameters()).device
    with compute.configure_cpu(), torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(volumes)).to(device)
        found = network(x.contiguous(memory_format=torch.channels_last_3d)).double().cpu()
        return (found[:, -1] - found[:, :-1].logsumexp(1)).numpy()


def _forward(network, found: list[dict[str, Any]], batch_size: int) -> None:
    """Score prepared arrays on the GPU, in place; the last batch is filled up with zeros."""
    import torch

    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    ready = [one for one in found if "array" in one]
    for first in range(0, len(ready), batch_size):
        part = ready[first : first + batch_size]
        standard = [standardised(one.pop("array")) for one in part]
        batch = np.zeros((batch_size, 1, *standard[0].shape), np.float32)
        batch[: len(part), 0] = standard
        for one, logit in zip(part, _logits(network, batch), strict=False):
            if np.isfinite(logit):
                one["logit"] = float(logit)
            else:
                one.update(fault="the network gives no finite number for it", note="")


def _value(result) -> dict[str, Any]:
    """Turn a lost task into a row with a reason that is tried again by the next call."""
    if isinstance(result, compute.Failure):
        said = f"it could not be processed ({result.error.partition(':')[0]})"
        return {"fault": said, "note": "", "logit": None, "again": True}
    return result


class Journal:
    """Results appended line by line to a file, each under the key of what it was made from.

    Parameters
    ----------
    path : path-like
        A file of one JSON object a line; made if needed. A torn last line is ignored.

    Attributes
    ----------
    found : dict of str to dict
        What was there when the journal was opened, and what was added since.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.found: dict[str, dict[str, Any]] = {}
        self._torn = False
        if self.path.exists():
            content = self.path.read_bytes()
            self._torn = bool(content) and not content.endswith(b"\n")
            for line in content.splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Keep a line if it is whole."""
        try:
            entry = json.loads(line)
            self.found[entry["key"]] = entry["value"]
        except (ValueError, KeyError, TypeError):
            return

    def add(self, entries: dict[str, dict[str, Any]]) -> None:
        """Append results and wait until they are on the disk."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"key": key, "value": value}) for key, value in entries.items()]
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write("\n" * self._torn + "\n".join(lines) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._torn = False
        self.found |= entries


def file_key(path: str | os.PathLike, *parts: Any) -> str | None:
    """Key of a file as it is now: its place, size and time of change.

    Parameters
    ----------
    path : path-like
        The file.
    *parts
        Whatever else the result depends on.

    Returns
    -------
    str or None
        None where the file cannot be read, so that it is tried again next time.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not os.access(path, os.R_OK):
        return None
    place = os.fsencode(os.path.abspath(path)).hex()
    return content_key(place, status.st_size, status.st_mtime_ns, *parts, digits=24)
