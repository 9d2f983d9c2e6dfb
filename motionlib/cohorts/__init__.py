"""Readers of cohorts: each turns the files of one into a manifest, and says who left and why."""

import os
from importlib import import_module
from pathlib import Path

COHORTS = {
    "adni": "motionlib.cohorts.adni",
    "msseg": "motionlib.cohorts.msseg",
    "bite": "motionlib.cohorts.bite",
    "aphp": "motionlib.cohorts.aphp",
    "ixi": "motionlib.cohorts.ixi",
    "mr-art": "motionlib.cohorts.mr_art",
    "bids": "motionlib.cohorts.bids",
    "caps": "motionlib.cohorts.caps",
    "virtual": "motionlib.cohorts.virtual.cohort",
}


def read_cohort(name: str, root: str | os.PathLike, **options):
    """Read a cohort with its own reader.

    Parameters
    ----------
    name, root : str, path-like
        A key of `COHORTS` (another is a `ValueError`), and the cohort's folder; for ``virtual`` the
        folder to generate it in.
    **options
        Passed to the reader (see its ``read``; for ``virtual``, ``make_cohort``).

    Returns
    -------
    Selection
        Unpacks as ``manifest, flow``; ``dropped`` names every scan that left.
    """
    if name not in COHORTS:
        raise ValueError(f"{name!r} is no cohort; expected one of {', '.join(COHORTS)}.")
    module = import_module(COHORTS[name])
    if name != "virtual":
        return module.read(root, **options)
    import pandas as pd  # naming the cohorts, as the command line does, needs no tables

    from motionlib.cohorts.selection import DROPPED_COLUMNS, Selection

    manifest, flow = module.make_cohort(root, **options)
    return Selection(manifest, flow, pd.DataFrame(columns=DROPPED_COLUMNS), Path(root))
