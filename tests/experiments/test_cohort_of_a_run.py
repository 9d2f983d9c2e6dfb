"""The cohort of a run: from folders through notebook 1 to its tables, read once."""

import os
import subprocess
import sys

import cohort_folders
import numpy as np
import pandas as pd
import pytest

from motionlib.cli import main as cli
from motionlib.experiments import cohort, copies, fine_tuning
from motionlib.experiments.cohort import open_cohort, paper_size, prepare_cohort, split_patients
from motionlib.files import repository
from motionlib.manifest import check_still, read_manifest
from motionlib.paper.tables import build_table
from motionlib.splits import PAPER_TEST_SIZES
from motionlib.study.run import Run

MAKERS = {"open": cohort_folders.open_cohorts, "paper": cohort_folders.paper_cohorts}
SMALL = {"size": 0, "spacing_mm": 8.0, "n_folds": 2}


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Make the folders of a profile and open a run on them."""

    def make(profile: str) -> Run:
        root = MAKERS[profile](tmp_path / "data")
        monkeypatch.setenv("MOTIONLIB_DATA", str(root))
        return Run("01_data_selection", profile, 20, tmp_path / "runs", quiet=True)

    make.root = tmp_path / "data"
    return make


def paper_manifest() -> pd.DataFrame:
    """As many scans as the paper has, not split yet."""
    numbers = {"adni": (700, 1143), "msseg": (53, 53), "bite": (13, 26), "aphp": (3200, 4045)}
    parts = []
    for name, (people, scans) in numbers.items():
        patient = np.arange(scans) % people
        rows = pd.DataFrame({"source_participant_id": [f"{name}-{p}" for p in patient]})
        rows["scan_id"] = [f"{name}-scan{k}" for k in range(scans)]
        rows["motion_grade"] = patient % 3 if name == "aphp" else 0
        role = "warehouse" if name == "aphp" else "research"
        parts.append(rows.assign(cohort=name, role=role))
    kinds = {"cohort": "string", "role": "string", "motion_grade": "Int64"}
    return pd.concat(parts, ignore_index=True).astype(kinds)


class TestPrepareCohort:
    def test_open_reads_ixi_and_mr_art_and_tells_every_reader_s_steps(self, held):
        run = held("open")
        (
            held.root / "mr-art" / "sub-600000" / "anat" / "sub-600000_acq-standard_T1w.nii.gz"
        ).unlink()
        manifest = prepare_cohort(run, cohort="open", **SMALL).manifest
        assert manifest["cohort"].value_counts().to_dict() == {"mr-art": 23, "ixi": 14}
        roles = manifest.groupby("cohort")["role"].apply(set).to_dict()
        assert roles == {"ixi": {"train", "test"}, "mr-art": {"train"}}
        flow = pd.read_csv(run.cohort / "flow.tsv", sep="\t")
        lost = flow[flow["n_in"] > flow["n_out"]]
        assert lost[["cohort", "n_in", "n_out"]].to_numpy().tolist() == [["mr-art", 24, 23]]
        assert "not on disk" in lost["reason"].iloc[0]

    def test_paper_keeps_real_motion_and_rejects_apart(self, held):
        run = held("paper")
        manifest = prepare_cohort(run, cohort="paper", **SMALL).manifest
        roles = manifest.groupby("cohort")["role"].apply(set).to_dict()
        assert roles["adni"] == {"train", "test", "real_motion"}
        assert roles["aphp"] == {"train", "excluded"}
        splits = pd.read_csv(run.folder / "splits.csv")
        assert splits.dropna(subset="y_true")["cohort"].nunique() == 3

    def test_every_file_is_written_once(self, held, monkeypatch):
        run, written = held("paper"), []
        for name in ("write_manifest", "write_table"):
            write = getattr(cohort, name)
            monkeypatch.setattr(
                cohort, name, lambda what, path, w=write: written.append(path.name) or w(what, path)
            )
        monkeypatch.setattr(cohort, "write_json", lambda path, what: written.append(path.name))
        monkeypatch.setattr(cohort, "open_cohort", lambda run, engine: None)
        prepare_cohort(run, cohort="paper", **SMALL)
        assert sorted(written) == ["cohort.json", "flow.tsv", "manifest.tsv", "splits.csv"]

    def test_a_second_call_needs_the_folders_no_more(self, held, monkeypatch):
        run = held("paper")
        first = prepare_cohort(run, cohort="paper", **SMALL)
        monkeypatch.delenv("MOTIONLIB_DATA")
        again = prepare_cohort(run, cohort="paper", **SMALL)
        pd.testing.assert_frame_equal(first.manifest, again.manifest)
        assert (first.key, first.caption) == (again.key, again.caption)

    def test_two_patients_with_one_name_are_refused(self, held):
        run = held("paper")
        table = held.root / "aphp" / "grades.csv"
        lines = table.read_text().splitlines()
        lines = [lines[0] + ",participant", *(f"{row},sub-{k % 20:02d}" for k, row in
                 enumerate(lines[1:], 1))]  # fmt: skip
        table.write_text("\n".join(lines) + "\n")
        with pytest.raises(ValueError, match="bite and aphp both have a participant sub-01"):
            prepare_cohort(run, cohort="paper", **SMALL)

    def test_a_missing_folder_is_named(self, held):
        run = held("open")
        (held.root / "mr-art").rename(held.root / "art")
        with pytest.raises(FileNotFoundError, match="mr-art is no folder"):
            prepare_cohort(run, cohort="open", **SMALL)


class TestVotes:
    """Nothing is called still in which a person saw motion (`MOTIONLIB_DATA` for the real heads).

    The emulation is left out: what matters is which heads it would be made of.
    """

    @pytest.fixture
    def real(self, data_root, tmp_path, monkeypatch):
        made = {}

        def emulate(clean, root, *, most_votes=0, **options):
            check_still(clean, most_votes=most_votes)
            made[root.name] = clean
            root.mkdir(parents=True)
            flow = {"step": ["emulated"], "cohort": "ixi-warehouse", "n_in": 1, "n_out": 1}
            pd.DataFrame(flow | {"reason": ""}).to_csv(root / "flow.tsv", sep="\t", index=False)
            ids = ("scan_id", "participant_id")
            named = {name: [f"{value}w" for value in clean[name]] for name in ids}
            role = {"role": "warehouse", "cohort": "ixi-warehouse", "motion_votes": pd.NA}
            return clean.assign(**named, **role, motion_grade=1)

        monkeypatch.setattr(cohort, "make_warehouse", emulate)
        manifest, flow = cohort.assemble("real", tmp_path, size=400, spacing_mm=2.0, seed=20)
        return manifest, flow, made

    def test_research_heads_have_no_vote_and_moving_heads_go_nowhere_else(self, real):
        manifest, _, made = real
        ixi = manifest[manifest["cohort"] == "ixi"]
        assert ixi.loc[ixi["role"] == "research", "motion_votes"].eq(0).all()
        moved = ixi[ixi["role"] == "real_motion"]["motion_votes"].value_counts()
        assert (moved[0], moved[[5, 6, 7, 8]].sum(), moved[[3, 4]].sum()) == (12, 17, 15)
        assert not {1, 2} & set(moved.index)
        assert made["warehouse"]["motion_votes"].max() == 2
        assert made["real_motion"]["motion_votes"].max() == 0

    def test_three_fifths_of_the_usable_heads_are_the_warehouse_s_and_all_are_counted(self, real):
        manifest, flow, made = real
        research = (manifest["role"] == "research").sum()
        archived = len(made["warehouse"])
        assert archived >= 0.6 * (archived + research) > archived - 1
        rows = flow[flow["cohort"] == "ixi"].set_index("step")
        assert rows["n_out"].to_list() == [150, 62, research]
        assert "56 with 1 or 2 votes" in rows.loc["nobody saw motion", "reason"]
        assert rows["n_out"]["research"] + archived + 12 + 32 == 150

    def test_no_patient_of_the_real_motion_test_is_trained_on(self, real):
        manifest, _, _ = real
        split = split_patients(manifest, n_folds=5, seed=20)
        tested = set(split.loc[split["role"] == "real_motion", "source_participant_id"])
        rest = set(split.loc[split["role"].isin(["train", "test"]), "source_participant_id"])
        assert len(tested) == 44
        assert not tested & rest

    def test_real_and_emulated_motion_are_two_tests(self, real, tmp_path):
        opened = cohort.Cohort(real[0], 4.0, None, "", "key", 20, tmp_path)
        both = [copies.motion_set(opened, emulated=kind) for kind in (False, True)]
        seen, made = (pd.read_csv(path, sep="\t") for path in both)
        assert seen["y_true"].value_counts().to_dict() == {1: 17, 0: 12}
        assert set(seen["cohort"]) == {"ixi"}
        assert set(made["cohort"]) == {"ixi-warehouse"}

    def test_without_verdicts_the_heads_are_unrated_and_none_is_tested_as_real(self, tmp_path):
        rows = pd.DataFrame({"source_participant_id": [f"p{k}" for k in range(10)]})
        unrated = rows.assign(motion_votes=pd.array([pd.NA] * 10, "Int64"))
        roles = cohort._roles_by_votes(unrated, seed=1)
        assert roles.value_counts().to_dict() == {"research": 8, "real_motion": 2}
        manifest = unrated.assign(role=roles, cohort="ixi", motion_grade=unrated["motion_votes"])
        opened = cohort.Cohort(manifest, 4.0, None, "", "key", 20, tmp_path)
        assert copies.motion_set(opened) is None

    def test_open_takes_voted_scans_out_of_research(self, held):
        run = held("open")
        names = sorted(p.name for p in (held.root / "ixi").rglob("*T1.nii.gz"))
        people = [f"sub-{name[:6]}" for name in names]
        lines = [f"{name}\trater_01\t0\t3\t{k < 3:d}" for k, name in enumerate(people[:8])]
        (held.root / "ixi-ratings").mkdir()
        header = "participant_id\trater_id\tdefaced\trating\thead_motion"
        (held.root / "ixi-ratings" / "ratings.tsv").write_text("\n".join([header, *lines]) + "\n")
        manifest = prepare_cohort(run, cohort="open", **SMALL).manifest
        ixi = manifest[manifest["cohort"] == "ixi"]
        apart = ixi[ixi["role"] == "real_motion"]
        assert sorted(apart["motion_votes"]) == [0, 1, 1, 1]
        table = build_table("table_1", run.folder).set_index("cohort")
        assert table.loc["ixi", "unrated"] == 14 - 8

    def test_a_run_that_calls_voted_heads_still_is_refused(self, held):
        run = held("open")
        prepare_cohort(run, cohort="open", **SMALL)
        path = run.cohort / "manifest.tsv"
        table = pd.read_csv(path, sep="\t", dtype=str)
        table.loc[table["cohort"] == "ixi", ["motion_votes", "n_verdicts"]] = ["6", "8"]
        table.to_csv(path, sep="\t", index=False)
        with pytest.raises(ValueError, match="14 scans would be called still"):
            open_cohort(run)


class TestOpenCohort:
    def test_the_files_are_read_once_however_many_sets_are_prepared(self, held, monkeypatch):
        run, opened = held("paper"), []
        prepare_cohort(run, cohort="paper", **SMALL)
        for name in ("read_manifest", "read_json"):
            read = getattr(cohort, name)
            monkeypatch.setattr(cohort, name, lambda path, r=read: opened.append(path) or r(path))
        scans = open_cohort(run)
        copies.synthetic_set(scans, "image", "2-4", "paper")
        for control in ("clean", "resampled"):
            copies.control_set(scans, control)
        copies.warehouse_set(scans, "mov01vs2")
        copies.motion_set(scans)
        fine_tuning.annotators(scans)
        next(scans.volumes(scans.research["scan_id"]))
        assert [path.name for path in opened] == ["cohort.json", "manifest.tsv"]

    def test_without_a_cohort_it_says_which_notebook_to_run(self, tmp_path):
        run = Run("02_simulation", "smoke", 20, tmp_path, quiet=True)
        with pytest.raises(FileNotFoundError, match="Run 01 first"):
            open_cohort(run)


class TestWithoutRaters:
    def test_no_annotators_leave_the_others_numbers(self, held):
        run = held("open")
        none = fine_tuning.annotators(prepare_cohort(run, cohort="open", **SMALL))
        row = {"experiment": "x", "task": "mov01vs2", "model": "m", "fold": -1, "scan_id": "s"}
        row |= {"participant_id": "p", "y_true": 1, "score": 0.5, "y_pred": 1}
        both = pd.concat([none, pd.DataFrame([row])], ignore_index=True)
        assert none.empty
        assert both[["y_true", "y_pred", "fold"]].dtypes.eq("int64").all()
        assert both["score"].nlargest(1).item() == 0.5


class TestPaperSplit:
    def test_the_paper_s_numbers_of_scans_give_its_test_sizes(self):
        assert {name: paper_size(name, n) for name, n in
                (("adni", 1143), ("msseg", 53), ("bite", 26), ("aphp", 4045))
                } == PAPER_TEST_SIZES  # fmt: skip

    def test_half_the_scans_give_half_the_test_set(self):
        assert paper_size("aphp", 2022) == round(385 / 2)

    def test_a_cohort_of_the_paper_s_size_has_the_paper_s_test_set(self):
        split = split_patients(paper_manifest(), n_folds=5, seed=20, as_in_paper=True)
        sizes = split[split["role"] == "test"]["cohort"].value_counts()
        assert (sizes["msseg"], sizes["aphp"]) == (7, 385)
        # patients with two scans are not torn: a total may miss by less than one patient
        assert abs(sizes["adni"] - 171) < 2
        assert abs(sizes["bite"] - 4) < 2
        trained = split[split["role"] == "train"]
        assert set(trained["fold"]) == set(range(5))
        sides = split.groupby("source_participant_id")[["role", "fold"]].nunique(dropna=False)
        assert (sides == 1).all(axis=None)

    def test_few_research_scans_keep_more_for_the_test_and_few_graded_none(self):
        few = paper_manifest().groupby("cohort").head(20).reset_index(drop=True)
        split, same = (
            split_patients(few, n_folds=2, seed=20, as_in_paper=paper) for paper in (True, False)
        )
        pd.testing.assert_frame_equal(split, same)
        tested = split["role"].eq("test").groupby(split["cohort"].eq("aphp")).mean()
        assert tested.to_list() == pytest.approx([0.25, 0.0], abs=0.05)
        graded = split[split["cohort"].eq("aphp")]
        assert set(graded["fold"]) == {0, 1}

    def test_with_100_severe_test_scans_the_test_set_is_fixed(self):
        many = paper_manifest()
        many["motion_grade"] = many["motion_grade"].mask(many["cohort"] == "aphp", 2)
        split = split_patients(many, n_folds=2, seed=20)
        tested = split[split["role"] == "test"]
        assert (tested["cohort"] == "aphp").sum() == pytest.approx(385, abs=1)


class TestCommand:
    def test_the_paper_s_test_size_of_a_cohort(self, held, tmp_path):
        held("paper")
        out = tmp_path / "bite.tsv"
        call = ["manifest", "bite", str(held.root / "bite"), "--out", str(out), "--folds", "2"]
        assert cli([*call, "--test-sizes", "paper"]) == 0
        assert (read_manifest(out)["role"] == "test").sum() == 4
        assert cli([*call, "--test-sizes", "bite=2"]) == 0
        assert (read_manifest(out)["role"] == "test").sum() == 2

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("bite", "--test-sizes is 'bite'; expected paper, or COHORT=N"),
            ("oasis=3", "which are no cohorts"),
            ("bite=8", "asks for 8 of 8 scans"),
        ],
    )
    def test_wrong_sizes_are_one_sentence(self, held, tmp_path, capsys, words, expected):
        held("paper")
        call = ["manifest", "bite", str(held.root / "bite"), "--out", str(tmp_path / "b.tsv")]
        assert cli([*call, "--test-sizes", words]) == 2
        said = capsys.readouterr().err
        assert expected in said
        assert said.count("\n") == 1


@pytest.mark.notebook
@pytest.mark.timeout(900)
class TestNotebook:
    @pytest.mark.parametrize("profile", ["open", "paper"])
    def test_notebook_one_goes_from_folders_to_tables(self, profile, tmp_path):
        root = MAKERS[profile](tmp_path / "data")
        command = [sys.executable, "-m", "motionlib.cli", "study", "--profile", profile]
        command += ["--only", "01", "--runs", str(tmp_path / "runs")]
        command += ["--set", "spacing_mm=8", "--set", "n_folds=2"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=repository(),
            env={**os.environ, "MOTIONLIB_DATA": str(root)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        folder = tmp_path / "runs" / profile
        ours = {name: pd.read_csv(folder / "tables" / f"{name}.csv") for name in
                ("table_1", "table_a1", "table_a2")}  # fmt: skip
        cohorts = " ".join(ours["table_1"]["cohort"].dropna())
        assert cohorts == {"open": "mr-art ixi", "paper": "adni msseg bite aphp"}[profile]
        assert ours["table_a1"]["total_ours"].sum() == {"open": 14, "paper": 34}[profile]
        assert ours["table_a2"]["mov01vs2_ours"].sum() == {"open": 24, "paper": 35}[profile]
        assert (folder / "figures" / "fig_a1.png").is_file()
