"""The cohort of a run: its scans, split by patient and centred on the study grid.

`prepare_cohort` brings the scans of one profile together (`assemble`), gives every patient to the
test set or to a fold (`split_patients`), centres every scan on the grid, and writes the result
once: ``cohort/manifest.tsv``, ``cohort/flow.tsv``, ``splits.csv`` and the centred volumes.
`open_cohort` reads it again; a notebook does so once and hands the `Cohort` down.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import compute
from motionlib.cohorts import read_cohort
from motionlib.cohorts.ratings import FEW_VOTES
from motionlib.cohorts.selection import FLOW, REAL_MOTION, Selection, count_scans, flow_label
from motionlib.cohorts.virtual.cohort import make_cohort
from motionlib.cohorts.virtual.warehouse import make_warehouse
from motionlib.files import (
    atomic,
    code_key,
    content_key,
    read_json,
    seed_from,
    write_json,
    write_table,
)
from motionlib.manifest import check_still, is_warehouse, read_manifest, write_manifest
from motionlib.preprocess.grid import Grid, middle_planes, place_on_grid, slab_grid, study_grid
from motionlib.preprocess.images import load_volume
from motionlib.splits import (
    PAPER_TEST_SIZES,
    assign_splits,
    check_no_leakage,
    partition_clean_corrupted,
)

# what a cohort's images, split and centred volumes come from
CODE = ("cohorts", "preprocess", "motion", "manifest.py", "splits.py", "experiments/cohort.py")
CAPTIONS = {
    "virtual": "Virtual cohort: heads generated from the MNI152 maps, motion by an emulated "
    "acquisition; none of these are the paper's images.",
    "real": "Real heads: IXI at 2 mm without a vote for motion, with synthetic motion; the "
    "warehouse and the emulated-motion test are EMULATED from other IXI patients by an acquisition "
    "simulator; real motion is what raters saw in IXI; none of these are the paper's images.",
    "open": "Open data: IXI for pre-training, MR-ART (one scanner, deliberate nodding, "
    "radiologists' grades) in the warehouse's place; none of these are the paper's images.",
    "paper": "The paper's cohorts as held at this site.",
}
HELD = {  # cohorts that are read from MOTIONLIB_DATA, and the role of scans whose reader names none
    "open": {"ixi": "research", "mr-art": "warehouse"},
    "paper": {**dict.fromkeys(("adni", "msseg", "bite"), "research"), "aphp": "warehouse"},
}
PAPER_IMAGES = {"adni": 1143, "msseg": 53, "bite": 26, "aphp": 5500}  # Table I
PAPER_GRADED = 4045  # warehouse scans without the straight rejects, Table A.II
RESEARCH_TEST = 182 / 1222  # Table A.I
WAREHOUSE_TEST = 385 / 4045  # Table A.II
FEW_RESEARCH = 150  # of fewer scans more are kept for the test
SMALL_RESEARCH_TEST = 0.25  # the share of Table A.I would leave a dozen
FEW_POSITIVE = 100  # with fewer severe scans in the test set every graded patient is judged once
FEW_GRADED = 2001  # half the paper's; from there on its own cohorts keep its fixed test set
FINEST_MM, COARSEST_MM = 1.0, 3.0  # voxels of virtual heads, whatever the study grid has
RESEARCH = 1.5  # times the paper's share of research scans: one share is 95 to pre-train on
WAREHOUSE_SHARE = 0.6  # at least, of the heads that may be called still, in the profile real
HELD_BACK = 0.2  # of the patients without a vote: still heads of the real-motion test
VISITS = 1.6  # scans of an ADNI-like patient; the paper's 1143 of 70 fit 1143 of 700 better


@dataclass(frozen=True, eq=False)
class Cohort:
    """The prepared cohort of a run, read once by a notebook and handed down."""

    manifest: pd.DataFrame  # a row a scan, with role and fold
    spacing_mm: float  # voxel size of the study grid
    slab_mm: float | None  # width of the midsagittal slab that networks see; None: the whole grid
    caption: str  # one sentence that stands beside every number made from this cohort
    key: str  # of everything that the scans come from; another cohort has other files
    seed: int  # master seed of the run
    cache: Path  # folder of the volumes and of the prepared manifests that name them
    engine: str = "inline"  # where copies are made, networks trained on them and scans scored

    @property
    def grid(self) -> Grid:
        """The study grid, of whole heads."""
        return study_grid(self.spacing_mm)

    @property
    def planes(self) -> slice:
        """Planes of a whole head, along its first axis, that networks see."""
        return middle_planes(self.network_grid.shape[0], self.grid)

    @property
    def network_grid(self) -> Grid:
        """The part of the study grid that networks see."""
        return slab_grid(self.spacing_mm, self.slab_mm)

    @property
    def n_outer(self) -> int:
        """Folds in each of which graded scans are judged by the others; 0 with a fixed test set."""
        graded = self.manifest[is_warehouse(self.manifest["cohort"])]
        if (graded["role"] == "test").any():
            return 0
        return graded.loc[graded["role"] == "train", "fold"].nunique()

    @property
    def research(self) -> pd.DataFrame:
        """Rows of the research cohorts that are split into train and test."""
        return _research_rows(self.manifest)

    def volume_path(self, scan_id: str) -> Path:
        """Path of a scan's centred volume."""
        return _centred_folder(self.cache, self.spacing_mm, self.key) / f"{scan_id}.npy"

    def volumes(self, scan_ids: Iterable[str]) -> Iterator[np.ndarray]:
        """Centred volumes (I, J, K), float32, one at a time: a warehouse's exceed the memory."""
        for scan in scan_ids:
            yield np.load(self.volume_path(scan)).astype(np.float32)


def prepare_cohort(
    run,
    *,
    cohort: str,
    size: int,
    spacing_mm: float,
    slab_mm: float | None = None,
    n_folds: int,
    engine: str = "inline",
) -> Cohort:
    """Build the cohort of a run, split it by patient and centre every usable scan; or read it.

    Source: paper §III-A, §III-D.1, Tables I, A.I and A.II.
    Departs from the paper: where its 9.5 % of the graded scans would hold fewer than 100 severe
    ones, there is no fixed test set, and every graded patient is judged once, out of fold; fewer
    than 150 research scans keep 25 % for the test in place of 15 %.

    Parameters
    ----------
    run, cohort : motionlib.study.run.Run, {"virtual", "real", "open", "paper"}
        Where everything is kept, and which cohort (see `CAPTIONS`). ValueError for another, or if
        two cohorts name a participant alike; FileNotFoundError if its data are not there.
    size : int
        Number of warehouse images to generate (the paper has 5500); the research cohorts scale
        with it. Not used by ``open`` and ``paper``, which take what there is.
    spacing_mm, slab_mm, n_folds, engine : float, float or None, int, str
        Voxel size of the study grid; width of the midsagittal slab that networks see, or all;
        folds of the patient-level cross-validation; where the work is done.
    """
    key = content_key(cohort, size, spacing_mm, slab_mm, n_folds, run.seed, code_key(*CODE))
    record = run.cohort / "cohort.json"
    if record.exists() and read_json(record)["key"] == key:
        return open_cohort(run, engine=engine)
    images = run.cohort / "images"
    slab_grid(spacing_mm, slab_mm)  # a slab that does not fit is told before any scan is made
    made = {"size": size, "spacing_mm": spacing_mm, "seed": run.seed, "engine": engine}
    manifest, flow = assemble(cohort, images, **made)
    manifest = split_patients(
        manifest, n_folds=n_folds, seed=run.seed, as_in_paper=cohort == "paper"
    )
    folder = _centred_folder(run.cache, spacing_mm, key)
    manifest, lost = centre_scans(manifest, folder, spacing_mm, engine)
    if cohort in HELD:  # readers count a cohort's real-motion test as a part of it
        lost = lost.assign(cohort=lost["cohort"].str.removesuffix(REAL_MOTION))
    manifest = manifest.assign(path=[_portable(path, run.cohort) for path in manifest["path"]])
    check_no_leakage(manifest)
    write_manifest(manifest, run.cohort / "manifest.tsv")
    write_table(pd.concat([flow, lost], ignore_index=True)[FLOW], run.cohort / "flow.tsv")
    corrupted = corrupted_half(_research_rows(manifest), seed=run.seed)
    labelled = manifest.assign(y_true=manifest["scan_id"].map(corrupted).astype("Int64"))
    write_table(labelled.drop(columns=["path", "sha256"]), run.folder / "splits.csv")
    facts = {"key": key, "caption": CAPTIONS[cohort], "spacing_mm": spacing_mm, "slab_mm": slab_mm}
    write_json(record, facts | {"cohort": cohort, "n_folds": n_folds})
    return open_cohort(run, engine=engine)


def open_cohort(run, *, engine: str = "inline") -> Cohort:
    """Read the cohort that `prepare_cohort` has left in a run; its scans are worked on by `engine`.

    FileNotFoundError if there is none yet, with the notebook that prepares it; ValueError if people
    saw head motion in a research scan.
    """
    facts = read_json(run.need(run.cohort / "cohort.json"))
    manifest = read_manifest(run.need(run.cohort / "manifest.tsv"))
    check_still(_research_rows(manifest))
    return Cohort(
        manifest=manifest,
        spacing_mm=float(facts["spacing_mm"]),
        slab_mm=facts["slab_mm"],
        caption=facts["caption"],
        key=facts["key"],
        seed=run.seed,
        cache=run.cache,
        engine=engine,
    )


def _research_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows of the research cohorts that are split into train and test."""
    split = manifest["role"].isin(["train", "test"]) & ~is_warehouse(manifest["cohort"])
    return manifest[split].reset_index(drop=True)


def corrupted_half(research: pd.DataFrame, *, seed: int) -> pd.Series:
    """Say by ``scan_id`` which research scans are corrupted (1): half, by patient (Table A.I)."""
    half = partition_clean_corrupted(research, seed=seed).astype(int)
    return pd.Series(half.to_numpy(), index=research["scan_id"].to_numpy())


def split_patients(
    manifest: pd.DataFrame, *, n_folds: int, seed: int, as_in_paper: bool = False
) -> pd.DataFrame:
    """Give train and test roles to the research and warehouse scans, folds to those that train.

    The test set has the share of Table A.I or A.II, a larger one where there are few research
    scans. Where the warehouse's would hold fewer than `FEW_POSITIVE` severe scans, there is none:
    every graded scan has a fold, and is judged by networks that have seen no scan of that fold.
    With `as_in_paper` every cohort has the paper's number of test scans where it has the paper's
    number of scans, else the same share of it, the warehouse's from `FEW_GRADED` scans on.
    """
    research = manifest[manifest["role"] == "research"]
    graded = manifest[(manifest["role"] == "warehouse") & manifest["motion_grade"].notna()]
    rest = manifest.drop(index=[*research.index, *graded.index])
    few_severe = WAREHOUSE_TEST * (graded["motion_grade"] == 2).sum() < FEW_POSITIVE
    once = few_severe and not (as_in_paper and len(graded) >= FEW_GRADED)
    few = len(research) < FEW_RESEARCH
    rules = (
        (research, SMALL_RESEARCH_TEST if few else RESEARCH_TEST, few, None),
        (graded, 0.0 if once else WAREHOUSE_TEST, once, "motion_grade"),
    )
    parts = []
    for scans, share, small, stratify in rules:
        if as_in_paper and not small:
            counts = scans["cohort"].value_counts()
            size = {"test_sizes": {name: paper_size(name, n) for name, n in counts.items()}}
        else:
            size = {"test_fraction": share}
        scans = scans.reset_index(drop=True)
        parts.append(assign_splits(scans, **size, n_folds=n_folds, seed=seed, stratify=stratify))
    return pd.concat([*parts, rest], ignore_index=True)


def paper_size(cohort: str, n: int) -> int:
    """Test scans of a cohort of n scans: the paper's number, or as large a share."""
    whole = {**PAPER_IMAGES, "aphp": PAPER_GRADED}[cohort]
    return round(PAPER_TEST_SIZES[cohort] * n / whole)


def centre_scans(
    manifest: pd.DataFrame, folder: Path, spacing_mm: float, engine: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Centre every scan that the study uses and keep it as ``{scan_id}.npy`` in a folder.

    Returns the manifest without the scans that failed, and those as rows of the flow.
    """
    used = manifest[manifest["role"] != "excluded"]
    items = [
        {"path": str(path), "out": str(folder / f"{scan}.npy"), "spacing": spacing_mm}
        for scan, path in zip(used["scan_id"], used["path"], strict=True)
    ]
    results = compute.submit(centre_scan, items, engine=engine, label="centre")
    failed = [isinstance(result, compute.Failure) for result in results]
    rows = zip(used["cohort"], used["role"].astype(str), results, strict=True)
    lost = [
        ("centring", flow_label(cohort, role), 1, 0, str(result.error))
        for cohort, role, result in rows
        if isinstance(result, compute.Failure)
    ]
    kept = manifest.drop(index=used.index[failed]).reset_index(drop=True)
    return kept, pd.DataFrame(lost, columns=FLOW)


def centre_scan(item: dict) -> str:
    """Centre one scan on the grid, scale its head to about one, keep it as float16."""
    out = Path(item["out"])
    if not out.exists():
        volume, affine = load_volume(item["path"])
        with atomic(out) as aside:
            np.save(aside, place_on_grid(volume, affine, study_grid(item["spacing"])))
    return str(out)


def _centred_folder(cache: Path, spacing_mm: float, key: str) -> Path:
    """Folder of centred volumes; another cohort has another, though its scans be named alike."""
    return cache / f"clean-{spacing_mm:g}mm-{key}"


def _portable(path: str, folder: Path) -> str:
    """Write a path relative to the manifest's folder, else to MOTIONLIB_DATA."""
    data = os.environ.get("MOTIONLIB_DATA")
    for root in (folder, *([Path(data)] if data else [])):
        if Path(path).is_relative_to(root.resolve()):
            return Path(path).relative_to(root.resolve()).as_posix()
    raise ValueError(f"scan {Path(path).name} lies neither in the run nor in MOTIONLIB_DATA")


def assemble(
    name: str, folder: Path, *, size: int, spacing_mm: float, seed: int, engine: str = "inline"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bring together the scans of one profile; arguments and errors as of `prepare_cohort`.

    Returns a manifest with absolute paths, whose ``role`` is ``research``, ``real_motion``,
    ``warehouse``, ``other_site`` or ``excluded``, and the flow of scans by step, with reasons.
    """
    if name not in CAPTIONS:
        raise ValueError(f"cohort is {name!r}; expected one of {', '.join(CAPTIONS)}")
    if name in HELD:
        return _held(HELD[name], seed=seed)
    if name == "virtual":
        return _virtual(Path(folder), size=size, spacing_mm=spacing_mm, seed=seed, engine=engine)
    return _real(Path(folder), size=size, seed=seed, engine=engine)


def data_root() -> Path:
    """Return the folder that MOTIONLIB_DATA names; FileNotFoundError if there is none."""
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


def _virtual(folder: Path, *, size: int, spacing_mm: float, seed: int, engine: str):
    """Virtual heads in every role, as fine as the study grid; research scans in proportion."""
    research = sum(PAPER_IMAGES[name] for name in ("adni", "msseg", "bite"))
    share = size / PAPER_IMAGES["aphp"]
    n_small = max(6, round(size * 0.02))  # MSSEG and BITE scaled would leave 1 to 6 scans
    n_adni = round((RESEARCH * research * share - 3 * n_small) / VISITS)  # BITE: two a patient
    manifest, flow = make_cohort(
        folder,
        n_research=(max(12, n_adni), n_small, n_small),
        n_real_motion=max(8, round(size * 0.04)),
        n_warehouse=size,
        spacing_mm=min(max(spacing_mm, FINEST_MM), COARSEST_MM),
        seed=seed,
        engine=engine,
    )
    return _absolute(manifest, folder), flow


def _real(folder: Path, *, size: int, seed: int, engine: str):
    """IXI patients by their votes (`_roles_by_votes`); an emulated warehouse; two other sites."""
    root = data_root()
    selection = read_cohort("ixi", root / "ixi-2mm")
    ixi = _absolute(selection.manifest, selection.root)
    ixi = ixi.assign(manufacturer="Philips", role=_roles_by_votes(ixi, seed=seed))
    # 1. The warehouse has every head with one or two votes, then heads without, to its share.
    few = ixi["motion_votes"].between(1, FEW_VOTES).fillna(False)
    free = np.sort(ixi.loc[ixi["role"] == "research", "source_participant_id"].unique())
    wanted = ceil(WAREHOUSE_SHARE * (len(free) + few.sum())) - few.sum()
    order = np.random.default_rng(seed_from(seed, "ixi roles")).permutation(free)
    archived = few | ixi["source_participant_id"].isin(order[: max(0, wanted)])
    emulated = make_warehouse(
        ixi[archived], folder / "warehouse", n=size, seed=seed, engine=engine, most_votes=FEW_VOTES
    )
    emulated = _absolute(emulated, folder / "warehouse")
    # 2. The emulated-motion test is made of the still heads of the real-motion test.
    heads = ixi[~archived]
    held = heads[(heads["role"] == "real_motion") & (heads["motion_votes"].fillna(0) == 0)]
    motion = make_warehouse(
        held, folder / "real_motion", n=4 * len(held), seed=seed + 1, engine=engine
    )
    motion = _absolute(motion, folder / "real_motion")
    motion = motion[motion["straight_reject"].fillna(0) == 0].assign(role="real_motion")
    sites = []
    for cohort, place in (("ds002748", "ds002748-1p5mm"), ("ds000011", "ds000011")):
        site = read_cohort("bids", root / place).manifest
        sites.append(_absolute(site, root / place).assign(cohort=cohort, role="other_site"))
    flows = [pd.read_csv(folder / n / "flow.tsv", sep="\t") for n in ("warehouse", "real_motion")]
    flows[1]["cohort"] += REAL_MOTION
    flows += [count_scans(site, "read", "") for site in sites]
    flow = pd.concat([_kept(ixi, archived), *flows], ignore_index=True)
    manifest = pd.concat([heads, motion, emulated, *sites], ignore_index=True)
    for column in ("scan_id", "participant_id", "source_participant_id"):
        other = manifest["cohort"].isin(["ds002748", "ds000011"])
        prefix = np.where(other, manifest["cohort"] + "-", "")
        manifest[column] = prefix + manifest[column].astype("string")
    return manifest, flow


def _roles_by_votes(ixi: pd.DataFrame, *, seed: int) -> pd.Series:
    """Role of every IXI scan: ``research`` where nobody saw motion, else ``real_motion``.

    `HELD_BACK` of the patients without a vote are real motion's still heads. A scan without a
    verdict is *unrated*: nothing is known against it, and it is called still until somebody looks.
    """
    votes = ixi["motion_votes"]
    still = (votes == 0).fillna(False) if votes.notna().any() else votes.isna()
    people = np.sort(ixi.loc[still, "source_participant_id"].unique())
    order = np.random.default_rng(seed_from(seed, "ixi held back")).permutation(people)
    held = ixi["source_participant_id"].isin(order[: round(HELD_BACK * len(people))])
    return (held | (votes > 0).fillna(False)).map({True: "real_motion", False: "research"})


def _kept(ixi: pd.DataFrame, archived: pd.Series) -> pd.DataFrame:
    """Count the IXI scans that are read, those that nobody saw move, and the research scans."""
    n, votes = len(ixi), ixi["motion_votes"].fillna(0)
    n_few, n_more = votes.between(1, FEW_VOTES).sum(), (votes > FEW_VOTES).sum()
    research = (ixi["role"] == "research") & ~archived
    unseen, n_held = votes == 0, ((ixi["role"] == "real_motion") & (votes == 0)).sum()
    moved = f"{n_few} with 1 or {FEW_VOTES} votes for motion, {n_more} with more: real motion"
    moved += f"; {ixi['motion_votes'].isna().sum()} without a verdict stay, unrated"
    taken = f"{n_held} held back for the test on real motion, {(archived & unseen).sum()} emulated"
    tested = ((ixi["role"] == "real_motion") & ~archived).sum()
    rows = [
        ("read", "ixi", n, n, ""),
        ("nobody saw motion", "ixi", n, unseen.sum(), moved),
        ("research", "ixi", unseen.sum(), research.sum(), taken),
        ("seen to move, or held back", f"ixi{REAL_MOTION}", n, tested, "the other heads"),
    ]
    return pd.DataFrame(rows, columns=FLOW)


def _held(roles: dict[str, str], *, seed: int):
    """Read cohorts that somebody holds, each with its own reader, steps and reasons."""
    root = data_root()
    selections = {name: read_cohort(name, root / name) for name in roles}
    _check_names(selections)
    scans, steps = [], []
    for name, selection in selections.items():
        rows = _absolute(selection.manifest, selection.root)
        rows, flow = rows.assign(role=rows["role"].fillna(roles[name])), selection.flow
        if rows["motion_votes"].notna().any():
            rows = rows.assign(role=_roles_by_votes(rows, seed=seed))
            flow = pd.concat([flow, _kept(rows, rows["role"].isna())[1:3]], ignore_index=True)
        scans.append(rows)
        steps.append(flow.assign(cohort=name))
    return pd.concat(scans, ignore_index=True), pd.concat(steps, ignore_index=True)


def _check_names(selections: dict[str, Selection]) -> None:
    """Refuse cohorts in which a participant of one is called like one of another."""
    people = {name: set(s.manifest["source_participant_id"]) for name, s in selections.items()}
    for first, second in combinations(people, 2):
        if shared := sorted(people[first] & people[second]):
            raise ValueError(
                f"{first} and {second} both have a participant {shared[0]} ({len(shared)} such "
                f"names); rename those of {second}, so that every patient has a name"
            )


def _absolute(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Resolve the paths of a manifest against its folder."""
    return manifest.assign(path=[str((root / path).resolve()) for path in manifest["path"]])
