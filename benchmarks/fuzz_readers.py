"""Give damaged files to the readers: each reads them, or refuses them in one sentence.

Small whole files of every kind are damaged by a seeded generator: bytes changed, cut out, put in
twice; header fields of images set to extremes; values of JSON exchanged for values of other kinds;
texts strewn with what breaks parsers. A case passes if the reader returns, or raises `REFUSALS`
with one line of text. Any other exception, `LIMIT_S` seconds of work, or memory that grows by
more than `LIMIT_MIB` is a fault. What a journal gives back must be what was written into it.

``python benchmarks/fuzz_readers.py --cases 100000`` writes ``benchmarks/results/fuzz.csv``: a row a
kind, with cases, those read and refused, faults, the slowest case and the growth of memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from motionlib.cohorts import bids, sources
from motionlib.cohorts.ratings import read_mriqc
from motionlib.files import read_json, read_table, write_table
from motionlib.iqms.measures import MEASURES
from motionlib.iqms.tables import COLUMNS as MEASURED
from motionlib.iqms.tables import measure_files
from motionlib.manifest import complete, read_manifest, usable_rows
from motionlib.motion.trajectory import Trajectory
from motionlib.predictions import PREDICTION_COLUMNS, check_predictions, load_predictions
from motionlib.preprocess.finder import find_scans
from motionlib.preprocess.images import read_array, read_image
from motionlib.scoring.model import decision_rule, model_grid
from motionlib.scoring.own_scans import read_graded
from motionlib.scoring.score import Journal
from motionlib.study.notebooks import find_notebooks, notebooks_folder, read_profile
from motionlib.training.checkpoints import load_model, read_weights

REFUSALS = (ValueError, OSError)  # FileNotFoundError is one of the latter
LIMIT_S, LIMIT_MIB = 5.0, 256
SIDE = 12  # voxels
EXTREMES = (0, 1, -1, 2**31 - 1, -(2**31), 0x7F800000, 0x7FC00000, 0x7F7FFFFF, 0x00010000, 348)
WORDS = (  # what breaks parsers
    *("", "\t", "\n", "\r", "\0", '"', "'", ",", ";", "\\", "\ufeff", "é", "\u2028", "[" * 3000),
    *('{"a":' * 3000, "NaN", "Infinity", "-1", "1e999", "9" * 5000, "0x10", "1_0", "null", "true"),
    *("../../x", "/etc/passwd", "=cmd()", "<script>", "{{7*7}}", "&a [*a]", "!!float x"),
    *("!!bool x", "!!timestamp x", "!!python/object:os.system {}", "? [a]", "2026-02-31"),
    *("1e300", "89+"),
)  # fmt: skip
STRANGE = (None, True, -1, 0, 1e308, 10**30, float("nan"), "", "x", [], [None], [[1]], {}, {"a": 1})


class Hang(BaseException):
    """A case took longer than it may."""


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    name: str  # of the file, in a folder of its own
    seeds: tuple[bytes, ...]  # whole files
    damage: Callable  # (bytes, generator) -> bytes
    read: Callable  # (path)
    share: int  # of a thousand cases


# Damage.


def bytes_damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Change single bytes, cut the end off, take a piece out, or put one in twice."""
    changed, size = bytearray(content), len(content)
    way = rng.integers(5)
    first, last = sorted(int(at) for at in rng.integers(0, size, 2))
    if way == 0:
        return bytes(changed[:first])
    if way == 1:
        return bytes(changed[:first] + changed[last:])
    if way == 2:
        return bytes(changed[:last] + changed[first:])
    for _ in range(int(rng.choice([1, 1, 2, 4, 16]))):
        changed[int(rng.integers(size))] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
    return bytes(changed)


def header_damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Set fields of an image's header to extremes; now and then damage any byte of the file."""
    if rng.random() < 0.2:
        return bytes_damaged(content, rng)
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        place, value = int(rng.integers(0, 540 // 2)) * 2, int(rng.choice(EXTREMES))
        size = int(rng.choice([1, 2, 4]))
        field = struct.pack(str(rng.choice(["<i", ">i"])), value)[:size]
        if place + size <= len(changed):
            changed[place : place + size] = field
    return bytes(changed)


def packed_damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage what is packed, or unpack it first."""
    if rng.random() < 0.7:
        return gzip.compress(header_damaged(gzip.decompress(content), rng), 1)
    return bytes_damaged(content, rng)


def text_damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Put words that break parsers into a text, or damage its bytes."""
    if rng.random() < 0.4:
        return bytes_damaged(content, rng)
    changed = content
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        first = int(rng.integers(0, len(changed)))
        last = first + int(rng.choice([0, 0, 1, 5]))
        changed = changed[:first] + str(rng.choice(WORDS)).encode() + changed[last:]
    return changed


def json_damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Exchange values of JSON for values of other kinds, or damage the text."""
    if rng.random() < 0.4:
        return text_damaged(content, rng)
    value = json.loads(content)
    for _ in range(int(rng.choice([1, 1, 2]))):
        value = _exchanged(value, rng)
    return json.dumps(value).encode()


def _exchanged(value, rng: np.random.Generator):
    """Exchange one value at a random depth."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return STRANGE[int(rng.integers(len(STRANGE)))]
    places = list(value) if isinstance(value, dict) else range(len(value))
    place = places[int(rng.integers(len(places)))]
    changed = value.copy()
    changed[place] = _exchanged(value[place], rng)
    return changed


# Whole files.


def _images() -> tuple[bytes, ...]:
    """NIfTI-1 and NIfTI-2, of several types, in both byte orders, with an extension."""
    rng = np.random.default_rng(0)
    array, affine = rng.integers(1, 99, (SIDE, SIDE, SIDE)), np.diag([4.0, 4, 4, 1])
    made = []
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        for dtype, order in (("i2", "<"), ("u1", "<"), ("f4", ">")):
            header = kind.header_class(endianness=order)
            header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
            header.set_xyzt_units("mm")
            image = kind(array.astype(dtype), affine, header)
            if dtype == "u1":
                image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a" * 100))
            made.append(image.to_bytes())
    return tuple(made)


def _mgh() -> bytes:
    """Make the volume of another format."""
    array = np.random.default_rng(0).integers(1, 99, (SIDE, SIDE, SIDE)).astype("i2")
    return nib.MGHImage(array, np.diag([4.0, 4, 4, 1])).to_bytes()


def _as_bytes(table: pd.DataFrame, name: str) -> bytes:
    """Write a table and read its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return write_table(table, Path(folder) / name).read_bytes()


def _manifest() -> bytes:
    """Make a manifest of eight graded scans."""
    names = [f"sub-{number}" for number in range(8)]
    grades = [0, 1, 2, 0, 1, 2, 0, 2]
    table = {"scan_id": names, "participant_id": names, "path": names, "motion_grade": grades}
    return _as_bytes(complete(pd.DataFrame(table | {"cohort": "bids", "age": 30.5})), "a.tsv")


def _mriqc() -> bytes:
    """Make a table of MRIQC."""
    rows = {"bids_name": ["sub-1_T1w", "sub-2_T1w"], "cjv": [0.4, 0.5], "cnr": [3.0, 2.0]}
    return _as_bytes(pd.DataFrame(rows | {"efc": [0.5, 0.6], "fber": [9.0, 8.0]}), "a.tsv")


def _predictions() -> bytes:
    """Make predictions of eight scans."""
    values = ("warehouse/a", "mov01vs2", "Conv5FC3", 0, "sub-1", "sub-1", 0, 0.25, 0)
    table = pd.DataFrame([dict(zip(PREDICTION_COLUMNS, values, strict=True))] * 8)
    scans = [f"sub-{number}" for number in range(8)]
    return _as_bytes(table.assign(scan_id=scans, participant_id=scans), "a.csv")


ENTRIES = {f"{n:024x}": {"fault": "", "note": "", "air": None, "logit": n / 7} for n in range(6)}


@cache
def _journal() -> bytes:
    """Make a journal of six scans."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "a.journal")
        journal.add(ENTRIES)
        return journal.path.read_bytes()


@cache
def _model() -> tuple[bytes, bytes]:
    """Make the description and the weights of a small model."""
    import torch
    from safetensors.torch import save

    from motionlib.networks import build_network

    options = {"members": 1, "channels": [4, 4, 8], "planes": 3}
    shape = model_grid(16.0, None, None).shape
    network = build_network("Slices", shape, **options)
    torch.manual_seed(0)
    facts = {"network": "Slices", "shape": list(shape), "n_classes": 2, "dropout": 0.0}
    facts |= {"options": options, "threshold": 0.5, "voxel_mm": 16.0, "key": "k", "review": None}
    facts |= {"slab_mm": None, "field_mm": None, "grade_thresholds": [0.2, 0.8]}
    facts |= {"calibration": {"temperature": 1.5, "bias": 0.1}}
    return json.dumps(facts).encode(), save(network.state_dict())


# Readers.


def read_scan(path: Path) -> None:
    """Read the header, then the voxels."""
    read_image(path, header_only=True)
    read_array(path)


def read_sidecar(path: Path) -> None:
    """Read a sidecar as the BIDS reader does; what it cannot read it names."""
    bids._read_sidecar(path, [])


def read_rows(path: Path) -> None:
    """Read a manifest by each of its readers; the first refusal is raised at the end."""
    refused = None
    for reader in (read_manifest, usable_rows, lambda p: read_graded(p, "mov01vs2"), _found):
        try:
            reader(path)
        except REFUSALS as error:
            refused = error
    if refused:
        raise refused


def _found(path: Path) -> None:
    find_scans([str(path)])


def read_journal(path: Path) -> None:
    """Open a journal; what it gives back must be what was written."""
    entries = Journal(path).entries
    wrong = [key for key, value in entries.items() if ENTRIES.get(key) != value]
    assert not wrong, f"the journal gives back what was not written: {entries[wrong[0]]}"


def read_description(path: Path) -> None:
    """Make a decision rule of a model's description, and open the model."""
    decision_rule(read_json(path), "model")
    load_model(path.parent)


def read_stages(path: Path) -> None:
    """Read a profile for the study's notebooks."""
    read_profile(path, _stems())


@cache
def _stems() -> list[str]:
    return [notebook.stem for notebook in find_notebooks(notebooks_folder())]


def kinds() -> dict[str, Kind]:
    """Every kind of file, by name; shares add up to a thousand."""
    images, (description, weights) = _images(), _model()
    sidecar = {"MagneticFieldStrength": 3, "Manufacturer": "GE", "ContrastBolusIngredient": "Gd"}
    trajectory = Trajectory([0, 0.5], [[0, 0, 0], [1, 2, 3]], [[0, 0, 0], [3, 2, 1]]).to_dict()
    row = dict.fromkeys(MEASURES, 0.5) | {"slices": 9, "slices_used": 9, "reason": ""}
    measured = {"k": {name: row[name] for name in MEASURED}}
    people = "participant_id\tage\tsex\nsub-1\t30\tF\nsub-2\t89+\tM\nsub-3\tn/a\t\n"
    profile = (notebooks_folder() / "profiles" / "smoke.yml").read_bytes()

    def of_json(value) -> tuple[bytes, ...]:
        return (json.dumps(value).encode(),)

    listed = (
        Kind("scan.nii", images, header_damaged, read_scan, 400),
        Kind("scan.nii.gz", tuple(map(gzip.compress, images)), packed_damaged, read_scan, 180),
        Kind("scan.mgh", (_mgh(),), header_damaged, read_scan, 30),
        Kind("scan_T1w.json", of_json(sidecar), json_damaged, read_sidecar, 130),
        Kind("a.journal", (_journal(),), text_damaged, read_journal, 100),
        Kind("trajectory.json", of_json(trajectory), json_damaged,
             lambda path: Trajectory.from_dict(read_json(path)), 50),
        Kind("cache.json", of_json(measured), json_damaged,
             lambda path: measure_files([], cache=path), 25),
        Kind("model.json", (description,), json_damaged, read_description, 30),
        Kind("weights.safetensors", (weights,), bytes_damaged, read_weights, 20),
        Kind("profile.yml", (profile,), text_damaged, read_stages, 10),
        Kind("participants.tsv", (people.encode(),), text_damaged,
             lambda path: sources.demographics(path.parent), 9),
        Kind("group_T1w.tsv", (_mriqc(),), text_damaged, read_mriqc, 5),
        Kind("table.csv", (b'a,b,c\n1,"x, y",2\n3,4,5\n',), text_damaged, read_table, 5),
        Kind("predictions.csv", (_predictions(),), text_damaged,
             lambda path: check_predictions(load_predictions(path.parent)), 3),
        Kind("manifest.tsv", (_manifest(),), text_damaged, read_rows, 3),
    )  # fmt: skip
    return {kind.name: kind for kind in listed}


# Cases.


def peak_mib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def outcome_of(kind: Kind, path: Path) -> tuple[str, str]:
    """Read one damaged file: ``read``, ``refused``, or ``fault`` and which."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)  # of its own work, however busy the machine
    try:
        kind.read(path)
    except REFUSALS as error:
        said = str(error)
        good = said.strip() and "\n" not in said.strip() and "Traceback" not in said
        return ("refused", said) if good else ("fault", f"no sentence: {said!r}")
    except Hang:
        return "fault", f"more than {LIMIT_S:g} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "fault", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read", ""


def _alarm(*_) -> None:
    raise Hang


def fuzz(kind: Kind, n_cases: int, seed: int, folder: Path, keep: Path | None = None) -> dict:
    """Read so many damaged files of one kind; a row of the result, with its faults.

    `keep` is a folder for the files that were at fault.
    """
    if kind.name == "model.json":
        (folder / "weights.safetensors").write_bytes(_model()[1])
    path, former = folder / kind.name, signal.signal(signal.SIGPROF, _alarm)
    path.write_bytes(kind.seeds[0])
    kind.read(path)  # whole files are read, and what this imports is no growth
    counts, faults, slowest = {"read": 0, "refused": 0, "fault": 0}, [], 0.0
    before = peak = peak_mib()
    begun = time.process_time()
    try:
        for case in range(n_cases):
            rng = np.random.default_rng([seed, len(kind.name), case])
            content = kind.damage(kind.seeds[case % len(kind.seeds)], rng)
            path.write_bytes(content)
            start = time.process_time()
            word, said = outcome_of(kind, path)
            slowest = max(slowest, time.process_time() - start)
            grown, peak = peak_mib() - peak, peak_mib()
            if word != "fault" and grown > LIMIT_MIB:
                word, said = "fault", f"memory grew by {grown:.0f} MiB"
            counts[word] += 1
            if word == "fault":
                faults.append(f"{kind.name} {case}: {said}")
                if keep is not None:
                    (keep / f"{case}_{kind.name}").write_bytes(content)
    finally:
        signal.signal(signal.SIGPROF, former)
    growth = peak - before
    row = {"kind": kind.name, "cases": n_cases, **counts, "slowest_ms": round(slowest * 1e3, 1)}
    row |= {"growth_mib": round(growth, 1), "cpu_s": round(time.process_time() - begun, 1)}
    return row | {"faults": faults}


def main() -> int:
    """Fuzz every kind and write the table; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--kind", action="append", help="only files of this name")
    parser.add_argument("--keep", type=Path, help="folder for the files that were at fault")
    parser.add_argument("--out", default="benchmarks/results/fuzz.csv")
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    rows, faults = [], []
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for kind in kinds().values():
            if args.kind and kind.name not in args.kind:
                continue
            count = max(1, args.cases * kind.share // 1000)
            row = fuzz(kind, count, args.seed, Path(folder), args.keep)
            faults += row.pop("faults")
            rows.append(row)
            print(row, flush=True)
    for line in faults[:40]:
        print(line)
    table = pd.DataFrame(rows)
    if not args.kind:
        write_table(table, args.out)
    print(f"{table['cases'].sum()} cases, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
