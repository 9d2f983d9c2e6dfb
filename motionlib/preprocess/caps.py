"""CAPS folders of Clinica's t1-linear: names of the files, and one made from a manifest."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

import motionlib
from motionlib import compute
from motionlib.compute import engines
from motionlib.compute.engines import failed_row, outcome_name, outcome_row
from motionlib.files import (
    atomic,
    content_key,
    identity,
    read_json,
    sha256_file,
    sweep,
    write_json,
    write_table,
)
from motionlib.manifest import complete, locate, usable_rows
from motionlib.preprocess.finder import SPACE
from motionlib.preprocess.grid import resample_to_grid, study_grid
from motionlib.preprocess.images import array3, read_array, save_volume
from motionlib.preprocess.linear import t1_linear
from motionlib.preprocess.registration import load_target, write_transform

VERSION = 3  # raise it when the same scan would come out differently
DESCRIPTION = {
    "Name": "t1-linear",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "CAPSVersion": "1.0.0",
    "GeneratedBy": [{"Name": "motionlib", "Version": motionlib.__version__}],
}
RESOLUTION = "res-1x1x1"
SHARES = (0.35, 0.5, 0.65)  # of each axis


def preprocess_manifest(
    manifest: str | os.PathLike,
    out: str | os.PathLike,
    *,
    backend: str = "simpleitk",
    template: str | None = None,
    engine: str = "inline",
    shard: str | None = None,
    cache: bool = False,
    orientation: str | None = None,
    progress=None,
) -> pd.DataFrame:
    """Preprocess every scan of a manifest into a CAPS folder, as `linear.t1_linear` does one.

    Rows whose id or path is faulty become failed rows; other faults refuse the call. What the
    folder already holds of the same scan and settings is kept. `shard` is ``"I/N"``, only every
    N-th scan from the I-th on; `cache` also writes float16 arrays for training, in ``cache-<hash of
    the manifest>``; `orientation`, such as RAS, is for files that do not state theirs. For `engine`
    and `progress` see `compute.engines.submit`. Returns a row per scan, ``scan_id status reason
    path`` and the numbers of `linear.Quality`, with status ``done``, ``kept`` or ``failed``, also
    written as ``outcome.tsv`` (``outcome_I-of-N.tsv``), beside ``manifest.tsv`` of what is there.
    """
    manifest, out = Path(manifest), Path(out)
    table, refused = usable_rows(manifest)
    settings = {"backend": backend, "template": None, "template_identity": None}
    settings["orientation"] = orientation
    if template is not None:
        settings |= {"template": str(template), "template_identity": identity(template)}
    items = [
        {
            "scan_id": row["scan_id"],
            "source": str(locate(row["path"], manifest.parent)),
            "out": str(out),
            "names": _names(row),
            **settings,
        }
        for row in table[~table["refused"]].to_dict("records")
    ]
    shared = _share_names(items)
    alone = [item for item in items if item["scan_id"] not in shared]
    results = compute.submit(
        preprocess_one,
        engines.shard(alone, shard) if shard else alone,
        engine=engine,
        label="preprocess",
        progress=progress,
    )
    rows = [outcome_row(result) for result in results]
    rows += [failed_row(scan, "shares its CAPS name with another scan") for scan in sorted(shared)]
    rows += [failed_row(r["scan_id"], r["fault"]) for r in refused.to_dict("records")]
    outcome = pd.DataFrame(rows)
    write_json(out / "dataset_description.json", DESCRIPTION)
    write_table(outcome, out / outcome_name(shard))
    if not shard:
        sweep(out / name for item in items for name in _written(item))
        _write_manifests(table, outcome, manifest, out, cache)
    return outcome


def preprocess_one(item: dict) -> dict:
    """Preprocess one scan, or find it done; see `preprocess_manifest`."""
    out, names = Path(item["out"]), item["names"]
    record = out / "qc" / f"{item['scan_id']}.json"
    start = {"scan_id": item["scan_id"], "reason": "", "path": names["cropped"]}
    try:
        source = Path(item["source"])
        made_of = [item["backend"], item["template_identity"], identity(source)]
        made_of += [item["orientation"]] if item["orientation"] else []
        key = content_key(VERSION, *made_of)
        image = out / names["cropped"]
        known = read_json(record) if record.is_file() and image.is_file() else {}
        if known.get("key") == key:
            return start | {"status": "kept"} | known["quality"]
        scan = read_array(source, orientation=item["orientation"])
        volume, affine, qc = t1_linear(scan, backend=item["backend"], template=item["template"])
    except (ValueError, FileNotFoundError) as error:
        return failed_row(item["scan_id"], str(error))
    matrix = np.array(qc.pop("matrix"))
    record.unlink(missing_ok=True)  # never beside an image that it does not describe
    with atomic(out / names["affine"]) as aside:
        write_transform(matrix, aside)
    qc_picture(volume, out / "qc" / f"{item['scan_id']}.png")
    save_volume(volume, affine, image)
    write_json(record, {"key": key, "quality": qc, "matrix": matrix.tolist()})
    return start | {"status": "done"} | qc


def _names(row: dict) -> dict:
    """CAPS names of one row's files."""
    participant, session, extra = entities_of(row["scan_id"], row["participant_id"])
    names = caps_names(participant, session, extra=extra)
    return {"cropped": names.cropped, "affine": names.affine}


def _written(item: dict) -> list[str]:
    """Names of the files that `preprocess_one` writes for a scan."""
    return [*item["names"].values(), f"qc/{item['scan_id']}.png", f"qc/{item['scan_id']}.json"]


def _share_names(items: list[dict]) -> set[str]:
    """Find scans whose files another scan has already claimed."""
    seen: set[str] = set()
    shared = set()
    for item in items:
        if item["names"]["cropped"] in seen:
            shared.add(item["scan_id"])
        seen.add(item["names"]["cropped"])
    return shared


def _write_manifests(table, outcome, source: Path, out: Path, cache: bool) -> None:
    """Write the manifest of what is there, and the float16 arrays if asked for."""
    there = outcome[outcome["status"] != "failed"].set_index("scan_id")
    kept = table[~table["refused"] & table["scan_id"].isin(there.index)].drop(columns="refused")
    kept = kept.assign(path=kept["scan_id"].map(there["path"]), sha256=pd.NA)
    kept["sha256"] = [sha256_file(out / path) for path in kept["path"]]
    write_table(complete(kept), out / "manifest.tsv")
    if not cache:
        return
    folder = out / f"cache-{sha256_file(source)[:12]}"
    for scan, path in zip(kept["scan_id"], kept["path"], strict=True):
        array = read_array(out / path)[0]
        scaled = array / max(float(np.percentile(array, 99.5)), 1e-6)
        with atomic(folder / f"{scan}.npy") as aside:
            np.save(aside, np.minimum(scaled, 100).astype(np.float16))
    arrays = kept.assign(path=kept["scan_id"] + ".npy", sha256=pd.NA)
    write_table(complete(arrays), folder / "manifest.tsv")


@dataclass(frozen=True)
class CapsNames:
    """Files of one scan, relative to the CAPS folder."""

    cropped: str  # image on the 169x208x179 grid
    whole: str  # image on the template's grid
    affine: str  # transform


def caps_names(participant: str, session: str, *, extra: str = "") -> CapsNames:
    """Name the t1-linear files of one scan, of ``sub-X`` and ``ses-Y``, as Clinica does.

    `extra` tells scans of a session apart, as ``acq-standard`` (Clinica keeps one per session).
    """
    for name, prefix in ((participant, "sub-"), (session, "ses-")):
        if not re.fullmatch(prefix + "[A-Za-z0-9]+", name):
            raise ValueError(f"{name!r} is no CAPS name; expected {prefix} and letters or digits.")
    image = f"subjects/{participant}/{session}/t1_linear/{participant}_{session}_"
    image += (f"{extra}_" if extra else "") + SPACE
    return CapsNames(
        f"{image}_desc-Crop_{RESOLUTION}_T1w.nii.gz",
        f"{image}_{RESOLUTION}_T1w.nii.gz",
        f"{image}_{RESOLUTION}_affine.mat",
    )


def entities_of(scan_id: str, participant_id: str) -> tuple[str, str, str]:
    """Participant, session and further entities of a scan, as CAPS wants them.

    Where ``sub-01_ses-2_acq-standard_T1w`` lacks one: `participant_id` and ``ses-M000``.
    """
    pairs = dict(part.split("-", 1) for part in scan_id.split("_") if re.match(r"\w+-\w", part))
    clean = {key: re.sub("[^A-Za-z0-9]", "", value) for key, value in pairs.items()}
    other = re.sub("[^A-Za-z0-9]", "", participant_id.removeprefix("sub-"))
    participant = f"sub-{clean.pop('sub', '') or other}"
    session = f"ses-{clean.pop('ses', '') or 'M000'}"
    known = "_".join(f"{key}-{value}" for key, value in clean.items() if value)
    return participant, session, known


def qc_picture(volume, path: str | os.PathLike) -> Path:
    """Draw nine slices of a volume (169, 208, 179) at 1 mm, the MNI152 brain outlined; a PNG.

    Above sagittal slices, then coronal and axial ones; sides are named, the head's left is left.
    """
    from PIL import Image, ImageDraw  # preprocessing without pictures needs neither

    array = array3(volume)
    target = load_target("whole-head")
    brain = resample_to_grid(target.brain.astype(np.float32), target.affine, study_grid(1.0)) > 0.5
    bright = max(float(np.percentile(array, 99.5)), 1e-6)
    side = max(array.shape)
    picture = Image.new("RGB", (len(SHARES) * side, 3 * side))
    draw = ImageDraw.Draw(picture)
    for axis, (low, high) in enumerate((("P", "A"), ("L", "R"), ("L", "R"))):
        for column, share in enumerate(SHARES):
            at = int(share * array.shape[axis])
            grey = np.clip(np.take(array, at, axis=axis).T[::-1] / bright, 0, 1)
            mask = np.take(brain, at, axis=axis).T[::-1]
            panel = np.repeat((255 * grey[..., None]).astype(np.uint8), 3, axis=2)
            panel[mask & ~ndimage.binary_erosion(mask)] = (255, 50, 50)
            left, top = column * side, axis * side
            tall, wide = panel.shape[:2]
            picture.paste(
                Image.fromarray(panel), (left + (side - wide) // 2, top + (side - tall) // 2)
            )
            draw.text((left + 4, top + side // 2), low, fill="white", font_size=16)
            draw.text((left + side - 16, top + side // 2), high, fill="white", font_size=16)
    with atomic(path) as aside:
        picture.save(aside, "PNG")
    return Path(path)
