"""The name of a study cohort goes in; one manifest of all its scans, and its flow, come out.

``virtual`` is generated, ``real`` mixes real heads with an emulated warehouse, ``open`` reads
what anyone can download, ``paper`` reads the restricted cohorts of the paper.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.cohorts import read_cohort
from motionlib.cohorts.flow import FLOW, REAL_MOTION, count_scans
from motionlib.files import seed_from

PAPER_IMAGES = {"adni": 1143, "msseg": 53, "bite": 26, "real_motion": 63, "warehouse": 5500}
RESEARCH = 2  # times the paper's share of research scans: one share is 95 to pre-train on
VISITS = 1.6  # scans of an ADNI-like patient; the paper's 1143 of 70 fit 1143 of 700 better


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
