"""The paper's two tasks (§III-D.2): severe motion against the rest, and mild motion against none.

>>> grade_to_task([0, 1, 2], "mov0vs1").tolist()
[0, 1, <NA>]
"""

import pandas as pd

TASK_GRADES = {"mov01vs2": ((0, 1), (2,)), "mov0vs1": ((0,), (1,))}  # negatives, positives
TASK_WORDS = {"mov01vs2": "severe motion against the rest", "mov0vs1": "mild motion against none"}


def grades_of(task: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grades without and with motion of a task, or one sentence that says which tasks there are."""
    if task not in TASK_GRADES:
        raise ValueError(f"Found task {task!r}, expected {' or '.join(map(repr, TASK_GRADES))}.")
    return TASK_GRADES[task]


def grade_to_task(grades, task: str) -> pd.Series:
    """Map grades 0, 1, 2 to the labels of a task: 1 for motion, 0 for none (paper §III-D.2).

    A grade that is missing, or no part of the task, gives a missing label (Series of Int64); an
    unknown task is a `ValueError`.
    """
    negative, positive = grades_of(task)
    grades = pd.Series(grades).astype("Int64")
    return grades.isin(positive).astype("Int64").where(grades.isin([*negative, *positive]))


def select_task(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Keep the scans of a task (see `grade_to_task`) and label them.

    Returns the rows of `table` whose ``motion_grade`` is part of the task, numbered anew, with
    ``y_true`` 0 or 1.
    """
    negative, positive = grades_of(task)
    kept = table[table["motion_grade"].isin([*negative, *positive])].reset_index(drop=True)
    return kept.assign(y_true=kept["motion_grade"].isin(positive).astype(int))


def rater_calls(grades: pd.Series, task: str) -> pd.Series:
    """Say for a rater's known grades whether they are motion, 0 or 1, also outside the task.

    A rater who gives grade 2 to a scan that the consensus calls mild has called motion.
    """
    _, positive = grades_of(task)
    return (grades >= min(positive)).astype(int)
