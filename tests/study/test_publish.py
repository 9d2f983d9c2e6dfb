"""The README's headline table is the published run's, not somebody's typing."""

import shutil

import pytest

from motionlib.files import repository
from motionlib.study.publish import END, HEADLINE, START, headline_lines, insert


def is_current(readme, folder) -> bool:
    """Say whether a README shows the headline of a published run, to the digit."""
    between = readme.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    return between.strip().splitlines() == headline_lines(folder)


class TestReadme:
    def test_the_committed_table_is_the_committed_runs(self):
        assert is_current(repository() / "README.md", repository() / "results" / HEADLINE)

    def test_a_typed_digit_is_noticed(self, tmp_path):
        readme = tmp_path / "README.md"
        lines = headline_lines(repository() / "results" / HEADLINE)
        lines[-1] = lines[-1].replace(".", ".9", 1)
        readme.write_text("\n".join([START, *lines, END]))
        assert not is_current(readme, repository() / "results" / HEADLINE)

    def test_real_motion_is_told_where_the_run_has_judged_it(self, tmp_path):
        for profile in (HEADLINE, "real"):
            (tmp_path / profile / "tables").mkdir(parents=True)
        for name in ("table_4.csv", "mcnemar.csv"):
            source = repository() / "results" / HEADLINE / "tables" / name
            shutil.copy(source, tmp_path / HEADLINE / "tables")
        tables = tmp_path / "real" / "tables"
        before = headline_lines(tmp_path / HEADLINE)
        (tables / "table_real_motion.csv").write_text("reason\nno rated scans here\n")
        assert headline_lines(tmp_path / HEADLINE) == before
        rows = ["task,detector,auc,auc_low,auc_high,n,n_positive"]
        rows += [f"{task},air_spread,0.86,0.71,0.94,150,{k}"
                 for task, k in (("votes5", 17), ("votes3", 32))]  # fmt: skip
        (tables / "table_real_motion.csv").write_text("\n".join(rows) + "\n")
        (added,) = set(headline_lines(tmp_path / HEADLINE)) - set(before)
        assert "(5 votes or more: 17 of 150 scans)" in added
        assert added.endswith("AUC 0.86 [0.71, 0.94] by one number: spread of the air.")

    def test_it_is_short_enough_for_a_first_screen(self):
        lines = headline_lines(repository() / "results" / HEADLINE)
        assert sum(line.startswith("|") for line in lines) <= 2 + 12
        assert len(lines) <= 21

    def test_a_readme_without_marks_is_left_alone(self, tmp_path):
        readme = tmp_path / "README.md"
        readme.write_text("nothing\n")
        with pytest.raises(ValueError, match="lacks"):
            insert(readme, repository() / "results" / HEADLINE)
        assert readme.read_text() == "nothing\n"
