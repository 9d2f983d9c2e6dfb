"""The published tables and numbers, exactly as printed or with the study's keys.

The printed values live in ``data_manifests/paper/`` and are never corrected; blank stays blank.
"""

from functools import cache

import pandas as pd

from motionlib.files import shipped

TASKS = {"mov01vs2": "severe", "mov0vs1": "mild"}
METHODS = {
    "Manual annotations": "annotators",
    "Conv5FC3 fine-tuned on CDW (proposed)": "fine_tuned",
    "Conv5FC3 trained on research dataset": "research_only",
    "Conv5FC3 trained from scratch on CDW": "from_scratch",
    "Random forest trained on research dataset": "forest_research",
    "Random forest trained on CDW": "forest_clinical",
    "Conv5FC3 pre-trained on k-space motion and fine-tuned on CDW": "fine_tuned_kspace",
}
ARCHITECTURES = {"Conv5FC3": "Conv5FC3", "ResNet": "ResNet3D", "SE-CNN": "SECNN", "ViT": "ViT3D"}
PUBLISHED = ("table_1", "table_2", "table_3", "table_4", "table_a1", "table_a2", "table_a3")
PUBLISHED += ("table_a4", "in_text")
PERCENTS = {
    "ba": "balanced_accuracy",
    "ba_sd": "balanced_accuracy_sd",
    "specificity": "specificity",
    "specificity_sd": "specificity_sd",
    "sensitivity": "sensitivity",
    "sensitivity_sd": "sensitivity_sd",
    "real_motion_accuracy": "real_motion_accuracy",
    "sex_f_pct": "sex_f",
}


@cache
def _read(table: str) -> pd.DataFrame:
    """Read one transcription once."""
    if table not in PUBLISHED:
        raise ValueError(f"Found table {table!r}, expected one of {', '.join(PUBLISHED)}.")
    text = {"value": str} if table == "in_text" else None
    return pd.read_csv(shipped("data_manifests") / "paper" / f"{table}.csv", dtype=text)


def printed(table: str) -> pd.DataFrame:
    """Return a published table exactly as transcribed: percents as percents, blanks as NaN.

    Parameters
    ----------
    table : str
        ``table_1`` ... ``table_4``, ``table_a1`` ... ``table_a4`` or ``in_text``; else ValueError.

    Returns
    -------
    DataFrame
        A fresh copy; the values of ``in_text`` are strings, as printed.
    """
    return _read(table).copy()


def published(table: str) -> pd.DataFrame:
    """Return a published table with the study's keys and with metrics as fractions.

    Parameters
    ----------
    table : str
        As for `printed`.

    Returns
    -------
    DataFrame
        One row per published row. Keys: ``simulator`` and ``severity`` (table_2), ``architecture``
        and ``model`` (table_3, table_a3), ``task`` and ``method`` (table_4, table_a4); metrics
        ``balanced_accuracy specificity sensitivity``, in table_4 also ``auc`` where the text states
        it.

    Notes
    -----
    Source: paper Tables I-IV, A.I-A.III and §IV-B. Table A.IV is cited in the paper but is not in
    the text we have: its two balanced accuracies are derived (see its ``note``).

    Examples
    --------
    >>> published("table_4").query("task == 'mov01vs2'")["method"].iloc[1]
    'fine_tuned'
    """
    frame = printed(table)
    for name, metric in PERCENTS.items():
        if name in frame:
            frame[name] = (frame[name].astype(float) / 100).round(6)
            frame = frame.rename(columns={name: metric})
    if table == "table_2":
        low, high = (frame[f"rotation_{end}_deg"].astype(str) for end in ("min", "max"))
        frame.insert(0, "severity", low + "-" + high)
        frame.insert(0, "simulator", frame.pop("simulation"))
    if "architecture" in frame:
        frame.insert(1, "model", frame["architecture"].map(ARCHITECTURES))
    if "method" in frame:
        frame.insert(2, "label", frame["method"])
        frame["method"] = frame["method"].map(METHODS)
    if table == "table_4":
        keys = zip(frame["task"], frame["method"], strict=True)
        frame["auc"] = [published_aucs().get(key, float("nan")) for key in keys]
    if table == "table_3":
        frame["training_minutes"] = [_minutes(text) for text in frame["training_time"]]
    return frame


def _minutes(text: str) -> int:
    """Turn ``3 h 52 min`` into minutes."""
    hours, minutes = text.removesuffix(" min").split(" h ")
    return 60 * int(hours) + int(minutes)


def audit() -> pd.DataFrame:
    """Return what adds up in the published tables and what does not, one row a finding.

    ``finding topic where printed recomputed verdict``, all text; ``finding`` is ``-`` where the
    numbers add up. A verdict says what a printed value can or cannot come from, never what is
    right. A test recomputes every number of ``data_manifests/paper/audit.csv`` from the paper's
    Tables I-IV, A.I-A.III and the numbers in the text, as transcribed.
    """
    return pd.read_csv(
        shipped("data_manifests") / "paper" / "audit.csv", dtype=str, keep_default_na=False
    )


def in_text(quantity: str) -> float:
    """Return one number of the running text.

    Parameters
    ----------
    quantity : str
        As in the column ``quantity`` of ``in_text``.

    Returns
    -------
    float
        The value as printed; ValueError for an unknown quantity or one that is not a number.
    """
    values = _read("in_text").set_index("quantity")["value"]
    if quantity not in values.index:
        raise ValueError(f"Found no quantity {quantity!r} in the text, see printed('in_text').")
    return float(values[quantity])


def published_aucs() -> dict[tuple[str, str], float]:
    """Areas under the curve stated in the text, by task and method, as fractions.

    Those of the rivals on the severe task follow from the stated gains; the research-only area on
    the mild task is nowhere stated. Source: paper §IV-B.
    """
    severe = in_text("AUC severe (mov01vs2) proposed")
    over_scratch = in_text("AUC severe gain over scratch (percent points)") / 100
    over_research = in_text("AUC severe gain over research-only (percent points)") / 100
    return {
        ("mov01vs2", "fine_tuned"): severe,
        ("mov01vs2", "from_scratch"): round(severe - over_scratch, 6),
        ("mov01vs2", "research_only"): round(severe - over_research, 6),
        ("mov0vs1", "fine_tuned"): in_text("AUC mild (mov0vs1) proposed"),
        ("mov0vs1", "from_scratch"): in_text("AUC mild scratch"),
    }
