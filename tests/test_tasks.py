"""Labels of the two tasks from grades."""

import pandas as pd
import pytest

from motionlib.tasks import grade_to_task, rater_calls, select_task

GRADES = pd.Series([0, 1, 2, None], dtype="Int64")


class TestGradeToTask:
    def test_grades_outside_a_task_are_missing(self):
        mild, severe = (grade_to_task(GRADES, task) for task in ("mov0vs1", "mov01vs2"))
        assert mild.isna().tolist() == [False, False, True, True]
        assert mild[:2].tolist() == [0, 1]
        assert severe[:3].tolist() == [0, 0, 1]
        assert severe.isna().tolist() == [False, False, False, True]

    def test_plain_lists_are_taken_too(self):
        assert grade_to_task([0, 1, 2], "mov01vs2").tolist() == [0, 0, 1]

    @pytest.mark.parametrize("function", [grade_to_task, rater_calls])
    def test_an_unknown_task_is_named(self, function):
        with pytest.raises(ValueError, match="Found task 'worst', expected 'mov01vs2' or"):
            function(GRADES, "worst")


class TestSelectTask:
    def test_tasks_take_their_grades(self):
        table = pd.DataFrame({"motion_grade": GRADES.array}, index=[3, 4, 5, 6])
        severe, mild = select_task(table, "mov01vs2"), select_task(table, "mov0vs1")
        assert severe.set_index("motion_grade").y_true.to_dict() == {0: 0, 1: 0, 2: 1}
        assert mild.set_index("motion_grade").y_true.to_dict() == {0: 0, 1: 1}
        assert severe.index.tolist() == [0, 1, 2]


class TestRaterCalls:
    def test_a_grade_above_the_task_is_a_call_of_motion(self):
        grades = pd.Series([0, 1, 2])
        assert rater_calls(grades, "mov0vs1").tolist() == [0, 1, 1]
        assert rater_calls(grades, "mov01vs2").tolist() == [0, 0, 1]
