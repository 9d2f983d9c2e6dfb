"""Rated scans as published: ratings beside MRIQC's measures, and human verdicts on IXI.

ABIDE (1,101 scans, up to three raters) and ds030 (265, one rater) travel in the wheel of
mriqc-learn; only its two TSV files are read, and the package is never imported. MR-ART's tables
(436 scans) and IXI's ratings (150) are read from a folder the user has.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from motionlib.files import read_table

FIRST_MEASURE = "cjv"  # MRIQC's tables list what a scan is first, then its measures from here on
MR_ART_SCORES = Path("derivatives/scores.tsv")
MR_ART_MEASURES = Path("derivatives/mriqc-0.16.1/group_T1w.tsv")
IXI_TABLES = ("S1_Data.tsv", "ratings.tsv")
IXI_MEASURES = ("S2_Data.csv", "mriqc_iqms.tsv")
FEW_VOTES = 2  # of 8: with more a scan is never called still, not even in an emulated warehouse
MOVED_VOTES = 5  # of 8: most verdicts say motion


def read_abide() -> pd.DataFrame:
    """Read ABIDE's ratings and MRIQC measures. Source: mriqc-learn, ``abide.tsv`` (Apache-2.0).

    Returns
    -------
    DataFrame, 1101 rows
        ``scan_id participant_id dataset site rater_1 rater_2 rater_3 y_true`` (1 = excluded by
        rater 3, who saw every scan) and 68 measures. Ratings: -1 exclude, 0 doubtful, 1 accept.
    """
    table = _shipped("abide.tsv", ["subject_id", "site", "rater_1", "rater_2", "rater_3"])
    return _rated(table, "abide", "rater_3", ["rater_1", "rater_2", "rater_3"])


def read_ds030() -> pd.DataFrame:
    """Read ds030's ratings and MRIQC measures. Source: mriqc-learn, ``ds030.tsv`` (Apache-2.0).

    Returns
    -------
    DataFrame, 265 rows
        ``scan_id participant_id dataset site rater_1 has_ghost y_true`` (1 = excluded) and the
        measures of ABIDE. ``has_ghost`` is a label too, never a measure.
    """
    table = _shipped("ds030.tsv", ["subject_id", "site", "has_ghost", "rater_1"])
    return _rated(table, "ds030", "rater_1", ["rater_1", "has_ghost"])


def read_mr_art(root=None) -> pd.DataFrame:
    """Read MR-ART's radiologist scores and MRIQC measures. Source: OpenNeuro ds004173 v1.0.2 (CC0).

    Parameters
    ----------
    root : path-like, optional
        Folder of the data set; default: ``mr-art`` under ``MOTIONLIB_DATA``. FileNotFoundError if
        the two tables are not there; ValueError if they do not describe the same scans.

    Returns
    -------
    DataFrame, 436 rows
        ``scan_id participant_id dataset site protocol motion_grade`` (0, 1, 2 for scores 1, 2, 3)
        and 68 measures of MRIQC 0.16.1.
    """
    root = find_mr_art(root)
    if root is None:
        raise FileNotFoundError(
            "MR-ART's tables are not found: expected derivatives/scores.tsv and MRIQC's "
            "group_T1w.tsv in mr-art under MOTIONLIB_DATA; "
            "run motionlib fetch mr-art DEST --subset tables"
        )
    scores = read_table(root / MR_ART_SCORES, ("bids_name", "score"))
    measures = read_mriqc(root / MR_ART_MEASURES)
    same = set(scores["bids_name"]) == set(measures["scan_id"])
    if not same or scores["bids_name"].duplicated().any():
        raise ValueError(
            f"MR-ART's tables name {scores['bids_name'].nunique()} scored and "
            f"{measures['scan_id'].nunique()} measured scans: expected the same ones, fetch both "
            "tables from one version"
        )
    parts = r"^(?P<participant_id>sub-\w+?)_acq-(?P<protocol>\w+?)_"
    names = measures["scan_id"].str.extract(parts)
    labels = measures[["scan_id"]].join(names).assign(dataset="mr-art", site="mr-art")
    score = scores.set_index("bids_name")["score"].reindex(measures["scan_id"])
    grade = pd.to_numeric(score, errors="coerce").to_numpy() - 1
    return pd.concat([labels.assign(motion_grade=grade), measures.drop(columns="scan_id")], axis=1)


def find_mr_art(root=None) -> Path | None:
    """Folder that holds MR-ART's two tables, or None; `root` as in :func:`read_mr_art`."""
    root = _below_data("mr-art") if root is None else Path(root)
    tables = (MR_ART_SCORES, MR_ART_MEASURES)
    return root if root and all((root / table).is_file() for table in tables) else None


def find_ixi_ratings() -> Path | None:
    """Folder ``ixi-ratings`` under MOTIONLIB_DATA, or None."""
    folder = _below_data("ixi-ratings")
    return folder if folder and folder.is_dir() else None


def _below_data(name: str) -> Path | None:
    """Place of a data set below MOTIONLIB_DATA, or None where that is not set."""
    data = os.environ.get("MOTIONLIB_DATA")
    return Path(data).expanduser() / name if data else None


def read_ixi_verdicts(folder: str | os.PathLike) -> pd.DataFrame:
    """Read what every rater said of scans of IXI, look by look.

    Source: Provins et al., PLoS Biology 2025, pbio.3003149; TheAxonLab/defacing-and-qc-analysis.

    Parameters
    ----------
    folder : path-like
        Holds ``S1_Data.tsv`` (Apache-2.0), as ``motionlib fetch ixi-ratings`` gets it, or a tidy
        ``ratings.tsv`` (``participant_id rater_id defaced rating head_motion``). FileNotFoundError
        if neither is there, ValueError for other columns.

    Returns
    -------
    DataFrame
        ``participant_id rater_id defaced repeat rating vote``; ``repeat`` counts how often a rater
        has seen that version (1 the first time), ``rating`` is 1 (exclude) to 4 (excellent), and
        ``vote`` is 1 where he ticked "head-motion" among the artefacts.
    """
    table = read_table(_ixi_table(folder, IXI_TABLES), ("rater_id", "defaced", "rating"))
    if "head_motion" in table:
        participant, ticked = table["participant_id"], table["head_motion"] == "1"
    else:  # as published: the number of the subject, and a list of artefacts
        participant = "sub-IXI" + table["subject"].str.zfill(3)
        ticked = table["artifacts"].str.contains('"head-motion"', regex=False)
    looks = table.assign(participant_id=participant, vote=ticked.astype(int))
    looks = looks.assign(rating=looks["rating"].map(float))
    repeat = looks.groupby(["participant_id", "rater_id", "defaced"]).cumcount() + 1
    names = ["participant_id", "rater_id", "defaced", "repeat", "rating", "vote"]
    return looks.assign(repeat=repeat)[names]


def read_ixi_ratings(folder: str | os.PathLike) -> pd.DataFrame:
    """Read human verdicts on scans of IXI, added up.

    A *verdict* is one rater's on one version of a scan, with its face or without; four raters give
    at most eight. It is a *vote* for motion where he ticked "head-motion" at any of the times that
    he saw that version. Arguments, errors and source as of `read_ixi_verdicts`. Returns
    ``participant_id motion_votes n_verdicts quality_rating``, one row a participant; the last is
    the mean of the verdicts, from 1 (exclude) to 4 (excellent).
    """
    pair = ["participant_id", "rater_id", "defaced"]
    verdicts = (
        read_ixi_verdicts(folder)
        .groupby(pair, as_index=False)
        .agg(vote=("vote", "max"), rating=("rating", "mean"))
    )
    return verdicts.groupby("participant_id", as_index=False).agg(
        motion_votes=("vote", "sum"), n_verdicts=("vote", "size"), quality_rating=("rating", "mean")
    )


def read_ixi_mriqc(folder: str | os.PathLike) -> pd.DataFrame:
    """Read MRIQC's measures of IXI: ``participant_id defaced``, then the measures.

    A scan stands twice, with its face (``defaced`` 0) and without (1). `folder` holds
    ``S2_Data.csv`` or a tidy ``mriqc_iqms.tsv``; errors and source as of `read_ixi_verdicts`.
    """
    table = read_table(_ixi_table(folder, IXI_MEASURES), ("defaced", FIRST_MEASURE))
    if "participant_id" not in table:
        table = table.assign(participant_id="sub-IXI" + table["sub"].str.zfill(3))
    cells = table.loc[:, FIRST_MEASURE:]
    measures = cells.drop(columns="participant_id", errors="ignore").apply(pd.to_numeric)
    return table[["participant_id"]].assign(defaced=table["defaced"].astype(int)).join(measures)


def _ixi_table(folder: str | os.PathLike, names: tuple[str, str]) -> Path:
    """Find a table of the ratings as published, or the tidy one."""
    path = next((Path(folder) / name for name in names if (Path(folder) / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder} has no {' or '.join(names)}: run motionlib fetch ixi-ratings DEST"
        )
    return path


def read_mriqc(path) -> pd.DataFrame:
    """Read a table of MRIQC (``group_T1w.tsv``): ``scan_id`` and the measures as they come.

    No such file is a FileNotFoundError, another table a ValueError: one sentence.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path.name}: expected MRIQC's group_T1w.tsv")
    needed = ("bids_name", FIRST_MEASURE, "efc", "fber")
    table = read_table(path, needed, missing=("", "n/a", "nan", "NaN", "NA"))
    cells = table.loc[:, FIRST_MEASURE:]
    measures = cells.apply(lambda column: pd.to_numeric(_objects(column), errors="coerce"))
    text = [name for name in cells if (measures[name].isna() & cells[name].notna()).any()]
    if text:
        raise ValueError(
            f"{path.name} has words in {', '.join(text)}: expected numbers in every measure"
        )
    if table["bids_name"].duplicated().any():
        raise ValueError(f"{path.name} names a scan twice: expected one row per scan")
    return pd.concat([table["bids_name"].astype(object).rename("scan_id"), measures], axis=1)


def measure_names(table: pd.DataFrame) -> list[str]:
    """Names of a reader's measures that vary and do not tell the scanner, as image size does."""
    grades = ["y_true", "motion_grade"]
    measures = table.loc[:, FIRST_MEASURE:].drop(columns=grades, errors="ignore")
    names = [name for name in measures if not name.startswith(("size_", "spacing_"))]
    return [name for name in names if table[name].nunique() > 1]


def _shipped(name: str, columns: list[str]) -> pd.DataFrame:
    """Read a table out of the installed mriqc-learn, without importing the package."""
    spec = find_spec("mriqc_learn")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [Path(folder) / "datasets" / name for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{name} is not installed: expected it in the package mriqc-learn, "
            "install mriqc-learn 0.0.3 or later"
        )
    table = pd.read_csv(path, sep="\t")
    if missing := [column for column in [*columns, FIRST_MEASURE] if column not in table]:
        raise ValueError(
            f"{name} has no column {', '.join(missing)}: expected a table of rated scans, check "
            "the file"
        )
    return table


def _rated(table: pd.DataFrame, dataset: str, reference: str, labels: list[str]) -> pd.DataFrame:
    """Give a shipped table the project's leading columns."""
    participants = table["subject_id"].astype(str)
    lead = pd.DataFrame({"scan_id": f"{dataset}_" + participants, "participant_id": participants})
    lead = lead.assign(dataset=dataset, site=table["site"]).join(table[labels])
    lead = lead.assign(y_true=(table[reference] == -1).astype(int))
    return pd.concat([lead, table.loc[:, FIRST_MEASURE:]], axis=1)


def _objects(column: pd.Series) -> pd.Series:
    """Cells as plain objects, so that whole numbers become plain integers."""
    return pd.Series(column.to_numpy(dtype=object, na_value=float("nan")), column.index)
