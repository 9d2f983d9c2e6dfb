"""The embedded virtual cohort: three research cohorts, a real-motion test and a warehouse.

Plans (`plans`) list the scans; every scan is then made alone (`make_scan`): draw the patient, lay
him into a scanner, give his tissues their signal, acquire while he moves, grade, write.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.cohorts.selection import count_scans
from motionlib.cohorts.virtual import signal
from motionlib.cohorts.virtual.anatomy import draw_anatomy
from motionlib.cohorts.virtual.heads import acquire_contrast, bias_field, render_head
from motionlib.cohorts.virtual.plans import plan_real_motion, plan_research, plan_warehouse
from motionlib.cohorts.virtual.raters import rate
from motionlib.cohorts.virtual.scanners import reformat, research_scanner, sample_scanner
from motionlib.cohorts.virtual.store import collect, make_all, write_scan
from motionlib.cohorts.virtual.warehouse import as_acquired, emulate_scan, reject_scan, still_noise
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
    seed, engine : int, str
        Of everything drawn; as for `motionlib.compute.engines.submit`.

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
    rows, failed = make_all(make_scan, items, engine=engine, label="virtual cohort")
    manifest = collect(root, rows, kind="virtual", caption=CAPTION)
    flow = count_scans(manifest, "generated", "virtual heads", failed)
    write_table(flow, root / "flow.tsv")
    return manifest, flow


def make_scan(item: dict) -> dict:
    """Make one planned scan (a task) and return what `store.write_scan` returns.

    The patient comes from the seed and his name alone, so that he is the same at every visit; all
    else from the seed and the names of patient, session and role.
    """
    # 1. the patient
    patient = np.random.default_rng(seed_from(item["seed"], item["source_participant_id"]))
    anatomy = draw_anatomy(patient, sex=item["sex"], **item["person"])
    rng = np.random.default_rng(
        seed_from(item["seed"], item["participant_id"], item["session"], item["role"])
    )
    # 2. the scanner
    if item["role"] in ("warehouse", "excluded"):
        scanner = sample_scanner(rng, hospital=item["hospital"])
    else:
        choices = _PROTOCOLS[item["cohort"]]
        dose = 0.0 if item["cohort"] == "virtual-adni" else rng.uniform(0.85, 1.15)
        scanner = research_scanner(choices[item["scanner"] % len(choices)], rng, gadolinium=dose)
    # 3. the motion-free signal
    head = render_head(
        anatomy,
        spacing_mm=item["spacing_mm"] * np.array(scanner.protocol.voxel_ratio),
        rng=rng,
        resected=item["resected"],
        growth_mm=item["growth_mm"],
    )
    volume = acquire_contrast(head, scanner.protocol, gadolinium=scanner.gadolinium)
    # 4. the acquisition: rejected, still, or moving
    if item["reject"]:
        volume, affine = reject_scan(volume, head.affine, item["reject"], scanner, rng)
        facts = as_acquired(scanner).facts()
        return write_scan(item, volume, affine, facts, None, {"severity_mm": None})
    if item["role"] == "research":
        seen = volume * bias_field(head.shape, scanner.bias, rng)
        volume, info = still_noise(seen, scanner.noise_sd, rng), {"severity_mm": 0.0}
    else:
        volume, info = emulate_scan(
            volume, head.affine, scanner, severity=item["severity_mm"], rng=rng
        )
    # 5. grades and archive
    grades = rate(info["severity_mm"], rng) if item["role"] == "warehouse" else None
    volume, affine = reformat(volume, head.affine, scanner.tilt_deg)
    return write_scan(item, volume, affine, scanner.facts(), grades, info)
