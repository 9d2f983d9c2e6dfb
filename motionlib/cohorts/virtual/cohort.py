"""A seed goes in; virtual research cohorts, a real-motion test and a warehouse come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.cohorts.selection import count_scans
from motionlib.cohorts.virtual import anatomy as anatomy_module
from motionlib.cohorts.virtual import heads, signal, warehouse
from motionlib.cohorts.virtual.plans import plan_real_motion, plan_research, plan_warehouse, rate
from motionlib.cohorts.virtual.scanners import reformat, research_scanner, sample_scanner
from motionlib.cohorts.virtual.store import Progress, collect, make_all, write_scan
from motionlib.cohorts.virtual.warehouse import reject_scan, still_noise
from motionlib.files import seed_from, write_table

CAPTION = (
    "Virtual heads generated from the MNI152 maps; motion by an emulated acquisition; "
    "not the paper's images."
)
_PROTOCOLS = {
    "virtual-adni": signal.ADNI,
    "virtual-msseg": signal.MSSEG,
    "virtual-bite": signal.BITE,
}


def make_cohort(
    root: str | Path,
    *,
    n_research: tuple[int, int, int] = (96, 12, 12),
    n_real_motion: int = 24,
    n_warehouse: int = 640,
    spacing_mm: float = 3.0,
    seed: int = 20,
    engine: str = "inline",
    progress: Progress = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Generate the embedded virtual cohort, or what is missing of it.

    Parameters
    ----------
    root : path-like
        Receives NIfTI files in a BIDS layout, ``manifest.tsv``, ``participants.tsv``,
        ``truth.tsv``, ``flow.tsv`` and ``cohort.json``.
    n_research : tuple of 3 int
        Patients like ADNI's (1.6 scans each), MSSEG's (one) and BITE's (before and after surgery).
    n_real_motion : int, default=24
        Patients of the real-motion test, each scanned once moving and once still on one scanner.
    n_warehouse : int, default=640
        Images in the warehouse, straight rejects included.
    spacing_mm : float, default=3
        Finest voxel edge of a scanner whose ratio is 1.
    seed : int, default=20
        Of everything drawn.
    engine : str, default="inline"
        Where the work is done (`motionlib.compute.engines.submit`).
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    manifest : DataFrame
        Columns of `motionlib.manifest`, paths relative to `root`. Roles ``research``,
        ``real_motion``, ``warehouse``, and ``excluded`` for the straight rejects.
    flow : DataFrame
        Columns ``step cohort n_in n_out reason``.

    Raises
    ------
    ValueError
        If a number is negative, or not a single scan could be made.

    Notes
    -----
    Source: paper §III-A, Tables I, A.I and A.II, scaled. Departs from the paper: the heads are
    virtual; the real-motion test also holds still scans, so that specificity can be measured.
    """
    if min(*n_research, n_real_motion, n_warehouse) < 0:
        raise ValueError(
            f"Numbers of patients and scans are {(*n_research, n_real_motion, n_warehouse)}; "
            "none may be negative."
        )
    root = Path(root)
    common = {"spacing_mm": float(spacing_mm), "seed": seed, "root": str(root)}
    items = [
        {**item, **common}
        for item in [
            *plan_research(n_research, seed),
            *plan_real_motion(n_real_motion, seed),
            *plan_warehouse(n_warehouse, seed),
        ]
    ]
    rows, failed = make_all(
        make_scan, items, engine=engine, label="virtual cohort", progress=progress
    )
    manifest = collect(root, rows, kind="virtual", caption=CAPTION)
    flow = count_scans(manifest, "generated", "virtual heads", failed)
    write_table(flow, root / "flow.tsv")
    return manifest, flow


def make_scan(item: dict) -> dict:
    """Make one planned scan (a task): draw the patient, render, acquire, grade, write.

    Parameters
    ----------
    item : dict
        From the plan; everything drawn comes from its seed and names.

    Returns
    -------
    dict
        As `store.write_scan`.
    """
    person = dict(item["person"])
    patient = np.random.default_rng(seed_from(item["seed"], item["source_participant_id"]))
    anatomy = anatomy_module.draw_anatomy(patient, sex=item["sex"], **person)
    rng = np.random.default_rng(
        seed_from(item["seed"], item["participant_id"], item["session"], item["role"])
    )
    if item["role"] in ("warehouse", "excluded"):
        scanner = sample_scanner(rng, hospital=item["hospital"])
    else:
        choices = _PROTOCOLS[item["cohort"]]
        dose = 0.0 if item["cohort"] == "virtual-adni" else rng.uniform(0.85, 1.15)
        scanner = research_scanner(choices[item["scanner"] % len(choices)], rng, gadolinium=dose)
    head = heads.render_head(
        anatomy,
        spacing_mm=item["spacing_mm"] * np.array(scanner.protocol.voxel_ratio),
        rng=rng,
        resected=item["resected"],
        growth_mm=item["growth_mm"],
    )
    volume = heads.acquire_contrast(
        head, scanner.protocol, rng, gadolinium=scanner.gadolinium, bias=scanner.bias
    )
    description, grades = warehouse.describe(scanner), None
    if item["reject"]:
        volume, affine = reject_scan(volume, head.affine, item["reject"], scanner, rng)
        description = warehouse.describe(warehouse.as_acquired(scanner))
        return write_scan(item, volume, affine, description, None, {"severity_mm": None})
    if item["role"] == "research":
        volume, info = still_noise(volume, scanner.noise_sd, rng), {"severity_mm": 0.0}
    else:
        volume, info = warehouse.emulate_scan(
            volume, head.affine, scanner, severity=item["severity_mm"], rng=rng
        )
    if item["role"] == "warehouse":
        grades = rate(info["severity_mm"], rng)
    volume, affine = reformat(volume, head.affine, scanner.tilt_deg)
    return write_scan(item, volume, affine, description, grades, info)
