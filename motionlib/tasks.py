"""A run with a cohort goes in; its prepared manifests (training sets, tests, controls) come out.

A prepared manifest lists volumes on the study grid with their label; each copy is made once.
"""

from __future__ import annotations

import pandas as pd

TASK_GRADES = {"mov01vs2": ((0, 1), (2,)), "mov0vs1": ((0,), (1,))}
TASK_WORDS = {"mov01vs2": "severe motion against the rest", "mov0vs1": "mild motion against none"}


def grade_to_task(grades, task: str) -> pd.Series:
    """Map grades to the labels of a task.

    Parameters
    ----------
    grades : Series of int
        Grades 0, 1, 2; missing where not graded.
    task : {'mov01vs2', 'mov0vs1'}
        Severe motion against the rest, or mild motion against none.

    Returns
    -------
    Series of Int64
        1 for motion, 0 for none, missing where the scan is not part of the task.

    Notes
    -----
    Source: paper §III-D.2.
    """
    grades = pd.Series(grades).astype("Int64")
    if task == "mov01vs2":
        return (grades == 2).astype("Int64").where(grades.notna())
    if task == "mov0vs1":
        return (grades == 1).astype("Int64").where(grades.notna() & (grades < 2))
    raise ValueError(f"Found task {task!r}, expected 'mov01vs2' or 'mov0vs1'.")
