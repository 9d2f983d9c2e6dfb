"""A run goes in; its cohort, split by patient and centred on the study grid, comes out once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import compute
from motionlib.cohorts import read_cohort
from motionlib.cohorts.selection import FLOW, REAL_MOTION, Selection, count_scans, flow_label
from motionlib.files import (
    atomic,
    code_key,
    content_key,
    read_json,
    seed_from,
    write_json,
    write_table,
)
from motionlib.manifest import is_warehouse, read_manifest, validate, write_manifest
from motionlib.preprocess.grid import Grid, centre_on_grid, study_grid
from motionlib.preprocess.images import load_volume
from motionlib.splits import (
    PAPER_TEST_SIZES,
    assign_splits,
    check_no_leakage,
    partition_clean_corrupted,
)

# what a cohort's images, split and centred volumes come from
CODE = ("cohorts", "preprocess", "motion", "manifest.py", "splits.py", "experiments/cohort.py")
RESEARCH_TEST = 182 / 1222  # Table A.I
WAREHOUSE_TEST = 385 / 4045  # Table A.II
SMALL_RESEARCH_TEST = 0.25  # of fewer than 150 scans: the share of Table A.I would leave a dozen
SMALL_WAREHOUSE_TEST = 0.35  # Table A.II's share would leave six severe scans at demo scale
PAPER_IMAGES = {"adni": 1143, "msseg": 53, "bite": 26, "real_motion": 63, "warehouse": 5500}
RESEARCH = 2  # times the paper's share of research scans: one share is 95 to pre-train on
VISITS = 1.6  # scans of an ADNI-like patient; the paper's 1143 of 70 fit 1143 of 700 better
HELD = {"open": ("ixi", "mr-art"), "paper": ("adni", "msseg", "bite", "aphp")}
PAPER_GRADED = 4045  # warehouse scans without the straight rejects, Table A.II
FEW_RESEARCH, FEW_GRADED = 150, 2000  # below, `studycohort` keeps more for the test


def _prepare_one(
    run, *, cohort: str, size: int, spacing_mm: float, n_folds: int, engine: str = "inline"
) -> pd.DataFrame:
    """Build or read the cohort of a run, split it by patient and centre every usable scan.

    Parameters
    ----------
    run : motionlib.study.run.Run
        Where everything is kept.
    cohort : {"virtual", "real", "open", "paper"}
        Which cohort (see `motionlib.experiments.cohort`).
    size : int
        Number of warehouse images to generate.
    spacing_mm : float
        Voxel size of the study grid in mm.
    n_folds : int
        Folds of the patient-level cross-validation.
    engine : str
        Where the work is done.

    Returns
    -------
    DataFrame
        The validated manifest, also written to ``cohort/manifest.tsv``.

    Notes
    -----
    Source: paper §III-A, §III-D.1, Tables I, A.I and A.II.
    Departs from the paper: at sizes below the paper's the warehouse keeps 35 % of the patients
    for the test set, since its 9.5 % would leave a handful of severe scans; fewer than 150
    research scans keep 25 % in place of 15 %.
    """
    code = code_key(*CODE)
    key = content_key(cohort, size, spacing_mm, n_folds, run.seed, code)
    record = run.cohort / "cohort.json"
    if record.exists() and read_json(record)["key"] == key:
        return read_manifest(run.cohort / "manifest.tsv")
    made = assemble(cohort, run.cohort / "images", size=size, seed=run.seed, engine=engine)
    manifest = _split(made.manifest, n_folds=n_folds, seed=run.seed)
    manifest, failed = _centre_all(run, manifest, key, spacing_mm, engine)
    manifest = manifest.assign(path=[_portable(path, run.cohort) for path in manifest["path"]])
    check_no_leakage(manifest)
    validate(manifest)
    write_manifest(manifest, run.cohort / "manifest.tsv")
    write_table(pd.concat([made.flow, failed], ignore_index=True), run.cohort / "flow.tsv")
    corrupted = corrupted_half(research_rows(manifest), seed=run.seed)
    labelled = manifest.assign(y_true=manifest["scan_id"].map(corrupted).astype("Int64"))
    write_table(labelled.drop(columns=["path", "sha256"]), run.folder / "splits.csv")
    facts = {"key": key, "kind": made.kind, "caption": made.caption, "spacing_mm": spacing_mm}
    write_json(record, facts | {"cohort": cohort, "n_folds": n_folds})
    return manifest


def _split(manifest: pd.DataFrame, *, n_folds: int, seed: int) -> pd.DataFrame:
    """Give train and test roles to the research and warehouse scans, folds to those that train."""
    research = manifest[manifest["role"] == "research"]
    labelled = manifest[(manifest["role"] == "warehouse") & manifest["motion_grade"].notna()]
    share = WAREHOUSE_TEST if len(labelled) > 2000 else SMALL_WAREHOUSE_TEST
    parts = []
    share_research = SMALL_RESEARCH_TEST if len(research) < 150 else RESEARCH_TEST
    for part, fraction in ((research, share_research), (labelled, share)):
        stratify = "motion_grade" if part is labelled else None
        parts.append(
            assign_splits(
                part.reset_index(drop=True),
                test_fraction=fraction,
                n_folds=n_folds,
                seed=seed,
                stratify=stratify,
            )
        )
    rest = manifest.drop(index=[*research.index, *labelled.index])
    return pd.concat([*parts, rest], ignore_index=True)


def research_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows of the research cohorts that are split into train and test."""
    split = manifest["role"].isin(["train", "test"]) & ~is_warehouse(manifest["cohort"])
    return manifest[split].reset_index(drop=True)


def corrupted_half(research: pd.DataFrame, *, seed: int) -> pd.Series:
    """Say by ``scan_id`` which research scans are corrupted (1): half, by patient (Table A.I)."""
    half = partition_clean_corrupted(research, seed=seed).astype(int)
    return pd.Series(half.to_numpy(), index=research["scan_id"].to_numpy())


def _portable(path: str, folder: Path) -> str:
    """Write a path relative to the manifest's folder, else to MOTIONLIB_DATA."""
    data = os.environ.get("MOTIONLIB_DATA")
    for root in (folder, *([Path(data)] if data else [])):
        if Path(path).is_relative_to(root.resolve()):
            return Path(path).relative_to(root.resolve()).as_posix()
    raise ValueError(f"scan {Path(path).name} lies neither in the run nor in MOTIONLIB_DATA")


def grid_of(run) -> Grid:
    """Return the study grid of a run whose cohort is prepared."""
    return study_grid(read_json(run.need(run.cohort / "cohort.json"))["spacing_mm"])


def manifest_of(run) -> pd.DataFrame:
    """Read the manifest of a run whose cohort is prepared."""
    return read_manifest(run.need(run.cohort / "manifest.tsv"))


def _centre_all(run, manifest, key: str, spacing_mm: float, engine: str):
    """Centre every scan that the study uses; a scan that fails leaves with a reason."""
    used = manifest[manifest["role"] != "excluded"]
    folder = _clean_folder(run, spacing_mm, key)
    items = [
        {"path": str(path), "out": str(folder / f"{scan}.npy"), "spacing": spacing_mm}
        for scan, path in zip(used["scan_id"], used["path"], strict=True)
    ]
    done = compute.submit(_centre_one, items, engine=engine, label="centre")
    bad = [isinstance(one, compute.Failure) for one in done]
    rows = zip(used["cohort"], used["role"].astype(str), done, strict=True)
    failed = [
        ("centring", flow_label(cohort, role), 1, 0, str(one.error))
        for cohort, role, one in rows
        if isinstance(one, compute.Failure)
    ]
    failed = pd.DataFrame(failed, columns=FLOW)
    return manifest.drop(index=used.index[bad]).reset_index(drop=True), failed


def _centre_one(item: dict) -> str:
    """Centre one scan on the grid, scale its head to about one, keep it as float16."""
    out = Path(item["out"])
    if not out.exists():
        volume, affine = load_volume(item["path"])
        array = np.clip(centre_on_grid(volume, affine, study_grid(item["spacing"])), 0, None)
        top = float(np.percentile(array, 99.5))
        if not top > 0:
            raise ValueError("the scan is empty after centring; expected a head")
        with atomic(out) as aside:
            np.save(aside, np.minimum(array / top, 100).astype(np.float16))
    return str(out)


def clean_path(run, scan_id: str) -> Path:
    """Path of a scan's centred volume."""
    facts = read_json(run.cohort / "cohort.json")
    return _clean_folder(run, facts["spacing_mm"], facts["key"]) / f"{scan_id}.npy"


def _clean_folder(run, spacing_mm: float, key: str) -> Path:
    """Folder of centred volumes; another cohort has another, though its scans be named alike."""
    return run.cache / f"clean-{spacing_mm:g}mm-{key}"


def example_volumes(run, scan_ids) -> tuple[list[np.ndarray], np.ndarray]:
    """Centred volumes of some scans.

    Returns
    -------
    volumes : list of ndarray, shape (I, J, K)
        float32.
    affine : ndarray, shape (4, 4)
        Of the study grid.
    """
    arrays = [np.load(clean_path(run, scan)).astype(np.float32) for scan in scan_ids]
    return arrays, grid_of(run).matrix


@dataclass(frozen=True)
class Assembly:
    """Scans of a study before they are split.

    Attributes
    ----------
    manifest : DataFrame
        One row per scan, columns of the manifest, absolute paths; ``role`` is ``research``,
        ``real_motion``, ``warehouse``, ``other_site`` or ``excluded``.
    flow : DataFrame
        How many scans came in and left at each step, and why.
    kind : str
        ``virtual``, ``mixed`` or ``real``.
    caption : str
        One sentence that stands beside every number made from this cohort.
    """

    manifest: pd.DataFrame
    flow: pd.DataFrame
    kind: str
    caption: str


def assemble(name: str, folder, *, size: int, seed: int, engine: str = "inline") -> Assembly:
    """Bring together the cohorts of one profile.

    Parameters
    ----------
    name : {"virtual", "real", "open", "paper"}
        Which study cohort.
    folder : path-like
        Where generated images are written.
    size : int
        Number of warehouse images to generate (the paper has 5500); the research cohorts scale
        with it.  Not used by ``open`` and ``paper``, which take what there is.
    seed : int
        Master seed.
    engine : str
        Where images are generated.

    Returns
    -------
    Assembly

    Raises
    ------
    ValueError
        If the name is unknown.
    FileNotFoundError
        If data are needed and MOTIONLIB_DATA does not point at them.
    """
    makers = {"virtual": _virtual, "real": _real, "open": _open, "paper": _paper}
    if name not in makers:
        raise ValueError(f"cohort is {name!r}; expected one of {', '.join(makers)}")
    return makers[name](Path(folder), size=size, seed=seed, engine=engine)


def data_root() -> Path:
    """Return the folder that MOTIONLIB_DATA names.

    Raises
    ------
    FileNotFoundError
        If the variable is not set or the folder does not exist.
    """
    value = os.environ.get("MOTIONLIB_DATA")
    if not value:
        raise FileNotFoundError(
            "MOTIONLIB_DATA is not set; expected the folder that holds the image data, "
            "for instance MOTIONLIB_DATA=../shared/data"
        )
    root = Path(value).expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"MOTIONLIB_DATA names {value!r}, which is no folder; set it to the image data"
        )
    return root


def _virtual(folder, *, size, seed, engine):
    from motionlib.cohorts.virtual import cohort as virtual

    research = sum(PAPER_IMAGES[name] for name in ("adni", "msseg", "bite"))
    share = size / PAPER_IMAGES["warehouse"]
    n_small = max(6, round(size * 0.02))  # MSSEG and BITE scaled would leave 1 to 6 scans
    n_adni = round(
        (RESEARCH * research * share - 3 * n_small) / VISITS
    )  # BITE has two scans a patient
    manifest, flow = virtual.make_cohort(
        folder,
        n_research=(max(12, n_adni), n_small, n_small),
        n_real_motion=max(8, round(size * 0.04)),
        n_warehouse=size,
        seed=seed,
        engine=engine,
    )
    return Assembly(
        _absolute(manifest, folder),
        flow,
        "virtual",
        "Virtual cohort: heads generated from the MNI152 maps, motion by an emulated acquisition; "
        "none of these are the paper's images.",
    )


def _real(folder, *, size, seed, engine):
    """IXI patients: research and, from other patients, an emulated warehouse; two other sites."""
    from motionlib.cohorts.virtual import warehouse

    root = data_root()
    ixi = read_cohort("bids", root / "ixi-2mm").manifest
    ixi = _absolute(ixi, root / "ixi-2mm").assign(cohort="ixi", manufacturer="Philips")
    patients = np.random.default_rng(seed_from(seed, "ixi roles")).permutation(
        np.sort(ixi["source_participant_id"].unique())
    )
    ixi = ixi.set_index("source_participant_id", drop=False)
    n_research, n_motion = round(0.66 * len(patients)), round(0.08 * len(patients))
    research = ixi.loc[patients[:n_research]].assign(role="research")
    moving = ixi.loc[patients[n_research : n_research + n_motion]]
    rest = ixi.loc[patients[n_research + n_motion :]]
    emulated = warehouse.make_warehouse(
        rest, folder / "warehouse", n=size, seed=seed, engine=engine
    )
    emulated = _absolute(emulated, folder / "warehouse")
    motion = warehouse.make_warehouse(
        moving, folder / "real_motion", n=4 * n_motion, seed=seed + 1, engine=engine
    )
    motion = _absolute(motion, folder / "real_motion")
    motion = motion[motion["straight_reject"].fillna(0) == 0].assign(role="real_motion")
    sites = []
    for cohort, place in (("ds002748", "ds002748-1p5mm"), ("ds000011", "ds000011")):
        site = read_cohort("bids", root / place).manifest
        sites.append(_absolute(site, root / place).assign(cohort=cohort, role="other_site"))
    made = [pd.read_csv(folder / n / "flow.tsv", sep="\t") for n in ("warehouse", "real_motion")]
    made[1]["cohort"] += REAL_MOTION
    seen = [count_scans(site, "read", "") for site in sites]
    flow = pd.concat([_kept(ixi, research), *made, *seen], ignore_index=True)
    everything = pd.concat([research, motion, emulated, *sites], ignore_index=True)
    for column in ("scan_id", "participant_id", "source_participant_id"):
        other = everything["cohort"].isin(["ds002748", "ds000011"])
        prefix = np.where(other, everything["cohort"] + "-", "")
        everything[column] = prefix + everything[column].astype("string")
    return Assembly(
        everything,
        flow,
        "mixed",
        "Real heads: IXI at 2 mm (assumed motion-free) with synthetic motion; the warehouse and "
        "the real-motion test are EMULATED from other IXI patients by an acquisition simulator; "
        "none of these are the paper's images.",
    )


def _open(folder, *, size, seed, engine):
    """IXI for pre-training, MR-ART (radiologists' grades) in the warehouse's place."""
    root = data_root()
    ixi = _absolute(read_cohort("ixi", root / "ixi").manifest, root / "ixi")
    art = _absolute(read_cohort("mr-art", root / "mr-art").manifest, root / "mr-art")
    everything = pd.concat(
        [ixi.assign(role="research"), art.assign(role="warehouse")], ignore_index=True
    )
    return Assembly(
        everything,
        count_scans(everything, "read", ""),
        "real",
        "Open data: IXI for pre-training, MR-ART (one scanner, deliberate nodding, radiologists' "
        "grades) in the warehouse's place; none of these are the paper's images.",
    )


def _paper(folder, *, size, seed, engine):
    """Read the restricted cohorts of the paper, for those who hold them."""
    root = data_root()
    parts = []
    for name in ("adni", "msseg", "bite", "aphp"):
        part = _absolute(read_cohort(name, root / name).manifest, root / name)
        role = "warehouse" if name == "aphp" else "research"
        parts.append(part.assign(role=part["role"].fillna(role)))
    everything = pd.concat(parts, ignore_index=True)
    return Assembly(
        everything,
        count_scans(everything, "read", ""),
        "real",
        "The paper's cohorts as held at this site.",
    )


def _absolute(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
    paths = [str((root / path).resolve()) for path in manifest["path"]]
    return manifest.assign(path=paths)


def _kept(ixi: pd.DataFrame, research: pd.DataFrame) -> pd.DataFrame:
    """Count the IXI scans that are read, and those of research patients."""
    n, reason = len(ixi), "other patients, kept for the emulated scans"
    rows = [("read", "ixi", n, n, ""), ("research", "ixi", n, len(research), reason)]
    return pd.DataFrame(rows, columns=FLOW)


def prepare_cohort(run, *, cohort: str, n_folds: int, **options) -> pd.DataFrame:
    """Build or read the cohort of a run; parameters and result as in `studycohort.prepare_cohort`.

    Raises
    ------
    ValueError
        If two cohorts name a participant alike: nobody could tell the patients apart.

    Notes
    -----
    Source: paper Tables A.I and A.II.  The cohort `paper` has the paper's test sizes where it has
    the paper's numbers of scans, else the same shares of every cohort.
    """
    try:
        manifest = _prepare_one(run, cohort=cohort, n_folds=n_folds, **options)
    except ValueError:
        if cohort in HELD:
            check_names(read_held(cohort))
        raise
    record = run.cohort / "held.json"
    made = read_json(run.cohort / "cohort.json")["key"]
    key = content_key(made, code_key("cohorts", "experiments/cohort.py"))
    if cohort not in HELD or (record.is_file() and read_json(record)["key"] == key):
        return manifest
    held = read_held(cohort)
    check_names(held)
    write_flow(run, held)
    if cohort == "paper":
        manifest = split_as_in_paper(manifest, n_folds=n_folds, seed=run.seed)
        write_split(run, manifest)
    write_json(record, {"key": key})
    return manifest


def read_held(cohort: str) -> dict[str, Selection]:
    """Read every cohort of a profile with its own reader."""
    return {name: read_cohort(name, data_root() / name) for name in HELD[cohort]}


def check_names(held: dict[str, Selection]) -> None:
    """Refuse cohorts in which a participant of one is called like one of another."""
    people = {name: set(each.manifest["source_participant_id"]) for name, each in held.items()}
    for first, second in combinations(people, 2):
        if shared := sorted(people[first] & people[second]):
            raise ValueError(
                f"{first} and {second} both have a participant {shared[0]} ({len(shared)} such "
                f"names); rename those of {second}, so that every patient has a name"
            )


def write_flow(run, held: dict[str, Selection]) -> None:
    """Replace the counts of ``cohort/flow.tsv`` by every reader's own steps and reasons."""
    flow = pd.read_csv(run.cohort / "flow.tsv", sep="\t")
    steps = [each.flow.assign(cohort=name) for name, each in held.items()]
    centred = flow[flow["step"] == "centring"]
    centred = centred.assign(cohort=centred["cohort"].str.removesuffix(REAL_MOTION))
    write_table(pd.concat([*steps, centred], ignore_index=True)[FLOW], run.cohort / "flow.tsv")


def split_as_in_paper(manifest: pd.DataFrame, *, n_folds: int, seed: int) -> pd.DataFrame:
    """Give a split manifest the paper's test sizes, or its shares where there are fewer scans.

    Parameters
    ----------
    manifest : DataFrame
        With roles and folds; few research or graded scans keep the split they have.
    n_folds, seed : int
        As in `splits.assign_splits`.

    Returns
    -------
    DataFrame
        The same rows.
    """
    split = manifest["role"].isin(["train", "test"])
    graded = split & is_warehouse(manifest["cohort"])
    parts = {"research": (split & ~graded, FEW_RESEARCH), "warehouse": (graded, FEW_GRADED)}
    for role, (rows, few) in parts.items():
        part = manifest[rows]
        if len(part) <= few:
            continue
        sizes = {name: paper_size(name, n) for name, n in part["cohort"].value_counts().items()}
        new = assign_splits(
            part.assign(role=role),
            test_sizes=sizes,
            n_folds=n_folds,
            seed=seed,
            stratify="motion_grade" if role == "warehouse" else None,
        )
        manifest = manifest.copy()
        for column in ("role", "fold"):
            manifest.loc[rows, column] = new[column]
    return manifest


def paper_size(cohort: str, n: int) -> int:
    """Test scans of a cohort of n scans: the paper's number, or as large a share."""
    whole = {**PAPER_IMAGES, "aphp": PAPER_GRADED}[cohort]
    return round(PAPER_TEST_SIZES[cohort] * n / whole)


def write_split(run, manifest: pd.DataFrame) -> None:
    """Write the manifest and ``splits.csv`` again, as `studycohort.prepare_cohort` does."""
    check_no_leakage(manifest)
    validate(manifest)
    write_manifest(manifest, run.cohort / "manifest.tsv")
    research = research_rows(manifest)
    corrupted = corrupted_half(research, seed=run.seed)
    labelled = manifest.assign(y_true=manifest["scan_id"].map(corrupted).astype("Int64"))
    write_table(labelled.drop(columns=["path", "sha256"]), run.folder / "splits.csv")
