"""What the readers share: tables, demographics, image files and their usual faults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from motionlib import files
from motionlib.cohorts.selection import ScanFilter
from motionlib.manifest import ID_PATTERN
from motionlib.preprocess.images import read_image

IMAGE_SUFFIXES = (".nii.gz", ".nii")
MISSING = ["", "n/a", "N/A", "NA", "nan", "-4"]  # ADNI writes -4 for "not done"
FLAGS = {"1": 1, "yes": 1, "true": 1, "0": 0, "no": 0, "false": 0}
SEXES = {"m": "M", "male": "M", "1": "M", "f": "F", "female": "F", "2": "F"}


def need_folder(root: str | os.PathLike) -> Path:
    """Return the cohort's folder as a path.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; expected the folder of the cohort.")
    return root


def find_table(root: Path, *patterns: str) -> Path:
    """Find one table below a folder, names compared without regard to case.

    Parameters
    ----------
    root : Path
        Where to look, two levels deep.
    *patterns : str
        Regular expressions for the whole name, tried in order; of several matches the last by
        name is taken (the newest version).

    Raises
    ------
    FileNotFoundError
        If no name matches.
    """
    levels = ("*", "*/*", "*/*/*")
    paths = [path for level in levels for path in sorted(root.glob(level)) if path.is_file()]
    for pattern in patterns:
        matches = [p for p in paths if re.fullmatch(pattern, p.name, flags=re.IGNORECASE)]
        if matches:
            return max(matches, key=lambda path: (-len(path.parts), str(path)))
    raise FileNotFoundError(f"{root} holds no table named like {' or '.join(patterns)}.")


def read_table(path: Path, required: tuple[str, ...]) -> pd.DataFrame:
    """Read a cohort's table as text, column names and those of `required` in lower case."""
    return files.read_table(path, required, missing=MISSING, lower=True)


def codes(column: pd.Series, meanings: Mapping[str, int]) -> pd.Series:
    """Read codes such as grades: words in any case, and 1, 1.0 and "1,0" alike; others are NA.

    pandas writes whole numbers with a fraction where a column has gaps.
    """
    plain = column.str.lower().str.replace(r"^(\d+)[.,]0+$", r"\1", regex=True)
    return plain.map(meanings).astype("Int64")


def flags(column: pd.Series, where: str) -> pd.Series:
    """Read yes or no as 1 or 0; a word that is neither is an error that lists the words seen."""
    values = codes(column, FLAGS)
    unknown = sorted(set(column[column.notna() & values.isna()]))
    if unknown:
        raise ValueError(
            f"{where} holds {', '.join(map(repr, unknown[:5]))}; expected 1 or 0, yes or no, true "
            "or false, in every row that is not empty."
        )
    return values


def demographics(root: Path) -> pd.DataFrame:
    """Read age and sex from a ``participants.tsv``.

    Returns
    -------
    pandas.DataFrame
        Index ``participant_id`` (``sub-...``), columns ``age`` (float) and ``sex`` (F, M or NA);
        empty where there is no such file. Contradictory rows of a participant are NA.
    """
    path = root / "participants.tsv"
    if not path.is_file():
        return tidy_people(pd.Series(dtype="string"), None, None)
    table = read_table(path, ("participant_id",))
    sex = next((table[name] for name in ("sex", "gender") if name in table), None)
    age = next((table[name] for name in ("age", "age_bl") if name in table), None)
    return tidy_people(table["participant_id"], age, sex)


def tidy_people(ids: pd.Series, age, sex) -> pd.DataFrame:
    """One row per participant; zero ages and contradictory rows become missing."""
    people = pd.DataFrame({"participant_id": ids.astype("string")})
    number = pd.to_numeric(age, errors="coerce") if age is not None else float("nan")
    people["age"] = pd.Series(number, index=people.index, dtype="float64")
    people["age"] = people["age"].where(people["age"].between(1, 120))
    said = sex.astype("string").str.lower() if sex is not None else pd.NA
    people["sex"] = pd.Series(said, index=people.index, dtype="string").map(SEXES).astype("string")
    people = people.dropna(subset="participant_id").drop_duplicates()
    torn = people["participant_id"].duplicated(keep=False)
    one = people.drop_duplicates("participant_id").set_index("participant_id")
    several = people[torn].groupby("participant_id").agg(["nunique", "first"])
    for name in ("age", "sex"):
        clear = several[(name, "nunique")] == 1
        one[name] = one[name].mask(one.index.isin(several.index))
        one.loc[several.index[clear], name] = several.loc[clear, (name, "first")]
    return one


def t1w_images(root: Path, *, below: str = "") -> Iterator[tuple[str, str, str]]:
    """Walk a BIDS folder.

    Yields
    ------
    participant, session : str
        ``sub-...`` and ``ses-...`` (empty where there are no sessions).
    path : str
        Relative to `root`, of each ``*_T1w.nii[.gz]`` in ``anat`` (or the folder `below`).
    """
    folder = below or "anat"
    for subject in _folders(root, "sub-"):
        sessions = _folders(root / subject, "ses-")
        for session in sessions or [""]:
            place = root / subject / session / folder
            if not place.is_dir():
                continue
            for name in sorted(entry.name for entry in os.scandir(place)):
                if name.endswith(tuple(f"_T1w{suffix}" for suffix in IMAGE_SUFFIXES)):
                    yield subject, session, (place / name).relative_to(root).as_posix()


def _folders(root: Path, prefix: str) -> list[str]:
    """Names of the folders that begin with a prefix, sorted."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.name.startswith(prefix) and e.is_dir())


def stem(path: str) -> str:
    """File name without its image suffix."""
    name = path.rsplit("/", 1)[-1]
    return next((name[: -len(s)] for s in IMAGE_SUFFIXES if name.endswith(s)), name)


def drop_unusable(scans: ScanFilter, root: Path, *, check_files: bool = True) -> None:
    """Let scans leave that are not on disk, that cannot be read, or that share an id.

    Parameters
    ----------
    scans : ScanFilter
        Its table has ``scan_id`` and ``path`` (relative to `root`).
    root : Path
        The cohort's folder.
    check_files : bool, default=True
        Open every header (about a millisecond a scan); else only names are compared.
    """
    absent = [not os.path.lexists(root / path) for path in scans.table["path"]]
    absent = pd.Series(absent, scans.table.index, dtype="boolean")
    scans.drop("image on disk", absent, "in the table and not on disk")
    odd = ~scans.table["scan_id"].astype("string").str.fullmatch(ID_PATTERN)
    scans.drop("plain name", odd, "has a name with other than ASCII letters and digits")
    twice = scans.table["scan_id"].duplicated()
    scans.drop("unique name", twice, "shares its name with another scan")
    if check_files:
        said = pd.Series([_fault(root / path) for path in scans.table["path"]], dtype="string")
        said.index = scans.table.index
        scans.drop("readable header", said.notna(), "unreadable: " + said)


def _fault(path: Path) -> str | None:
    """Why an image's header is of no use, or None."""
    try:
        read_image(path, header_only=True)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None
