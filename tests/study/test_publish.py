"""The README's headline table is the published run's, not somebody's typing."""

import shutil

import pandas as pd
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

    def test_what_is_said_of_controls_and_of_real_motion_is_in_the_tables(self):
        text = (repository() / "README.md").read_text(encoding="utf-8")
        for words in (
            "a quarter to nine tenths of them",
            "misses most motion in images as scanners store them in `demo` and half of it in `hosp",
            "in `real` calls three to eight of ten resampled heads motion",
            "of 17 IXI scans that raters saw move",
            "none by image-based motion and at most 41 % by k-space motion",
        ):
            assert words in text
        results, called = repository() / "results", {}
        for profile in ("demo", "hospital", "real"):
            table = pd.read_csv(results / profile / "tables" / "table_2.csv")
            table = table[table["simulator"].isin(["image", "kspace"])].set_index("simulator")
            called[profile] = table["resampled_called_motion"]
            if profile != "real":
                ladder = pd.read_csv(results / profile / "tables" / "controls.csv")
                ladder = ladder[(ladder["recipe"] == "paper") & (ladder["site"] == "same site")]
                rungs = ["motion_2-4", "motion_4-6", "motion_6-8"]
                found = ladder.set_index("control").loc[rungs, "called_motion"]
                low, high = {"demo": (0, 0.25), "hospital": (0.4, 0.6)}[profile]
                assert found.between(low, high).all()
        kspace = pd.concat([each["kspace"] for each in called.values()])
        assert (round(kspace.min(), 2), round(kspace.max(), 1)) == (0.26, 0.9)
        assert called["real"]["image"].round(1).agg(["min", "max"]).to_list() == [0.3, 0.8]
        real = table["real_motion_accuracy_ours"]  # of the last profile
        assert (real["image"].max(), round(real["kspace"].max(), 2)) == (0, 0.41)
        votes = pd.read_csv(results / "real" / "tables" / "table_real_motion.csv")
        assert votes.loc[votes["task"] == votes["task"].iloc[0], "n_positive"].unique() == [17]

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
