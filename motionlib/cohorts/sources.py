"""What the readers share: tables, demographics, image files and their usual faults."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from motionlib import files
from motionlib.cohorts.selection import ScanFilter
from motionlib.manifest import ID_PATTERN
from motionlib.preprocess.finder import told
from motionlib.preprocess.images import need_orientation, read_image

MISSING = ["", "n/a", "N/A", "NA", "nan", "-4"]  # ADNI writes -4 for "not done"
FAULTS = ("plain name", "unique name", "readable header")  # steps at which a file is at fault
FLAGS = {"1": 1, "yes": 1, "true": 1, "0": 0, "no": 0, "false": 0}
SEXES = {"m": "M", "male": "M", "1": "M", "f": "F", "female": "F", "2": "F"}


def need_folder(root: str | os.PathLike) -> Path:
    """Return the cohort's folder as a path; none there is a FileNotFoundError."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; expected the folder of the cohort.")
    return root


def find_table(root: Path, *patterns: str) -> Path:
    """Find one table at most two levels below a folder, names compared without regard to case.

    `patterns` are regular expressions for the whole name, tried in order; of several matches the
    last by name is taken (the newest version). None is a `FileNotFoundError`.
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
    return _plain_code(column).map(meanings).astype("Int64")


def _plain_code(column: pd.Series) -> pd.Series:
    """Lower case, whole numbers without a fraction."""
    return column.str.lower().str.replace(r"^(\d+)[.,]0+$", r"\1", regex=True)


def numbers(column: pd.Series) -> pd.Series:
    """Read numbers, float64: a decimal comma too, and 89+, which is 89, a lower limit."""
    plain = column.astype("string").str.replace(r"^(\d+),(\d+)$", r"\1.\2", regex=True)
    return pd.to_numeric(plain.str.removesuffix("+"), errors="coerce").astype("float64")


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


def add_people(scans: ScanFilter, root: Path, parts: Sequence[str] = ("",)) -> None:
    """Join age and sex from the ``participants.tsv`` of `root` (or of its `parts`) to the scans.

    Participants are the same whose names differ in case, in leading zeros or by ``sub-`` alone, if
    that names one of each; the flow says which rows found no scan.
    """
    people = pd.concat([demographics(root / part) for part in parts])
    people = people[~people.index.duplicated()]
    wanted = set(scans.table["participant_id"])
    of_scans = _by_plain_name(wanted - set(people.index))
    of_table = _by_plain_name(set(people.index) - wanted)
    same = {of_table[name]: of_scans[name] for name in of_table.keys() & of_scans.keys()}
    people = people.rename(index=same)
    scans.table = scans.table.join(people, on="participant_id")
    unused = sorted(set(people.index) - wanted)
    if unused:
        scans.note("demographics", f"rows of participants.tsv without a scan: {told(unused)}")


def demographics(root: Path) -> pd.DataFrame:
    """Age and sex (F, M, NA) of ``participants.tsv`` by ``participant_id``; empty without it."""
    path = root / "participants.tsv"
    if not path.is_file():
        return tidy_people(pd.Series(dtype="string"), None, None)
    table = read_table(path, ("participant_id",))
    sex = next((table[name] for name in ("sex", "gender") if name in table), None)
    age = next((table[name] for name in ("age", "age_bl") if name in table), None)
    return tidy_people(table["participant_id"], age, sex)


def tidy_people(ids: pd.Series, age, sex) -> pd.DataFrame:
    """One row per participant; zero ages and contradictory rows become missing.

    Where there is an age such as 89+, ``age_censored`` is 1 for those whose age is at least that.
    """
    people = pd.DataFrame({"participant_id": ids.astype("string")})
    people["age"] = float("nan") if age is None else numbers(age)
    at_least = pd.Series(age, people.index, dtype="string").str.endswith("+").fillna(False)
    if at_least.any():
        people["age_censored"] = at_least.astype("Int64")
    people["age"] = people["age"].where(people["age"].between(1, 120))
    words = pd.Series(pd.NA if sex is None else sex, index=people.index, dtype="string")
    people["sex"] = _plain_code(words).map(SEXES).astype("string")
    people = people.dropna(subset="participant_id").drop_duplicates()
    torn = people["participant_id"].duplicated(keep=False)
    each = people.drop_duplicates("participant_id").set_index("participant_id")
    several = people[torn].groupby("participant_id").agg(["nunique", "first"])
    for name in ("age", "sex"):
        clear = several[(name, "nunique")] == 1
        each[name] = each[name].mask(each.index.isin(several.index))
        each.loc[several.index[clear], name] = several.loc[clear, (name, "first")]
    return each


def _by_plain_name(names: set[str]) -> dict[str, str]:
    """Names of participants by what people agree on; those that then are not alone are left out."""
    plain = {name: name.lower().removeprefix("sub-").lstrip("0") for name in names}
    counts = Counter(plain.values())
    return {short: name for name, short in plain.items() if counts[short] == 1}


def drop_unusable(scans: ScanFilter, root: Path) -> None:
    """Let scans leave that are not on disk, that cannot be read, or that share an id.

    Their paths start from `root`; every header is opened (about a millisecond a scan).
    """
    absent = [not os.path.lexists(root / path) for path in scans.table["path"]]
    absent = pd.Series(absent, scans.table.index, dtype="boolean")
    scans.drop("image on disk", absent, "in the table and not on disk")
    odd = ~scans.table["scan_id"].astype("string").str.fullmatch(ID_PATTERN)
    scans.drop("plain name", odd, "has a name with other than ASCII letters and digits")
    twice = scans.table["scan_id"].duplicated()
    scans.drop("unique name", twice, "shares its name with another scan")
    said = pd.Series([_fault(root / path) for path in scans.table["path"]], dtype="string")
    said.index = scans.table.index
    scans.drop("readable header", said.notna(), "unreadable: " + said)


def _fault(path: Path) -> str | None:
    """Why an image's header is of no use, or None."""
    try:
        need_orientation(path, read_image(path, header_only=True))
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None
