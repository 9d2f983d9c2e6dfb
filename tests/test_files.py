"""Checksums, seeds and atomic writing."""

import gzip
import hashlib
import os

import numpy as np
import pandas as pd
import pytest

from motionlib import files
from motionlib.motion.on_disk import Motion, corrupt_file
from motionlib.preprocess.images import save_volume


class TestContentKey:
    def test_order_of_a_dictionary_does_not_matter(self):
        assert files.content_key({"a": 1, "b": 2}) == files.content_key({"b": 2, "a": 1})

    def test_different_values_give_different_keys(self):
        assert files.content_key("1") != files.content_key(1)

    def test_a_path_is_refused_since_it_differs_between_machines(self, tmp_path):
        with pytest.raises(TypeError):
            files.content_key(tmp_path)

    def test_the_key_is_the_same_on_every_machine(self):
        expected = hashlib.sha256(b'["a",1]').hexdigest()[:12]
        assert expected == files.content_key("a", 1)


class TestSeedFrom:
    def test_every_scan_has_its_own_seed(self):
        seeds = {files.seed_from(20, f"scan{i}") for i in range(500)}
        assert len(seeds) == 500
        assert all(0 <= seed < 2**63 for seed in seeds)


def _write_half(path):
    path.write_text("half")
    raise OSError("null bytes left on the disk")


class TestAtomic:
    def test_a_failure_leaves_the_old_file_and_no_rubbish(self, tmp_path):
        path = files.write_text(tmp_path / "a.txt", "old")
        with pytest.raises(OSError, match="null"), files.atomic(path) as aside:
            _write_half(aside)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

    def test_the_temporary_name_keeps_its_suffixes(self, tmp_path):
        with files.atomic(tmp_path / "x.nii.gz") as aside:
            assert aside.name.endswith(".nii.gz")
            aside.write_bytes(b"1")

    def test_a_table_comes_back(self, tmp_path):
        table = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
        files.write_table(table, tmp_path / "t.tsv")
        pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "t.tsv", sep="\t"))


class TestReadTable:
    def read(self, path, text, *args, **options):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return files.read_table(path, *args, **options)

    def test_quotation_marks_in_a_tsv_are_letters_and_lose_no_row(self, tmp_path):
        text = 'id\tnote\na\t"moved\nb\tthe "nod"\nc\tnod"\n'
        table = self.read(tmp_path / "t.tsv", text)
        assert list(table["id"]) == ["a", "b", "c"]
        assert list(table["note"]) == ['"moved', 'the "nod"', 'nod"']
        files.write_table(table, tmp_path / "again.tsv")
        assert (tmp_path / "again.tsv").read_text() == text

    def test_a_csv_is_quoted_by_its_rules(self, tmp_path):
        table = self.read(tmp_path / "t.csv", 'id,note\na,"one, two ""three"""\n')
        assert table.loc[0, "note"] == 'one, two "three"'

    def test_a_line_break_in_a_cell_is_told_since_it_swallows_rows(self, tmp_path):
        text = 'id,note\na,fine\nb,"moved\nc,still\nd,nod"\ne,fine\n'
        with pytest.raises(ValueError, match="a line break inside a cell of row 2"):
            self.read(tmp_path / "t.csv", text)

    def test_byte_order_mark_semicolons_and_blank_rows(self, tmp_path):
        text = b"\xef\xbb\xbfID;Age \r\n\r\na;1\r\n;\r\n ; \r\n"
        table = self.read(tmp_path / "t.csv", text, ["id", "age"], lower=True)
        assert table.to_dict("list") == {"id": ["a"], "age": ["1"]}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"", "is no UTF-8 table"),
            ("é\n".encode("latin-1"), "is no UTF-8 table"),
            (b"a\tb\n1\t2\t3\n", "Expected 2 fields in line 2, saw 3"),
            (b"a\ta\n1\t2\n", "has the column a twice"),
            (b"a\tb\n1\t2\n", "has no column id; it has a, b"),
        ],
    )
    def test_what_is_no_table_is_one_sentence(self, tmp_path, text, words):
        with pytest.raises(ValueError, match=words):
            self.read(tmp_path / "t.tsv", text, ["id"])


class TestGzipped:
    def test_it_comes_back_and_carries_no_time(self):
        packed = files.gzipped(b"motion" * 1000)
        assert gzip.decompress(packed) == b"motion" * 1000
        assert packed[4:8] == bytes(4)

    def test_no_image_is_packed_by_isal(self, monkeypatch, tmp_path, phantom):
        # which now and then gives other bytes for the same image, too seldom to be seen in a test
        monkeypatch.setattr("isal.igzip.compress", lambda *args, **rest: pytest.fail("isal"))
        path = save_volume(phantom, np.eye(4), tmp_path / "a.nii.gz")
        corrupt_file(path, tmp_path / "b.nii.gz", Motion())
        assert (tmp_path / "b.nii.gz").is_file()


class TestSweep:
    def test_it_removes_what_a_killed_process_left_aside_and_nothing_else(
        self, tmp_path, left_aside
    ):
        names = [left_aside("a.json"), left_aside("other.json"), ".hidden.a.json", "a.json"]
        for name in names:
            (tmp_path / name).write_text("{}")
        paths = [tmp_path / "a.json", tmp_path / "gone" / "a.json"]
        assert files.sweep(paths) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])

    def test_it_knows_the_names_that_atomic_gives(self, tmp_path, monkeypatch, left_aside):
        pid = int(left_aside("").split("-")[1], 16)
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "getpid", lambda: pid)
            with files.atomic(tmp_path / "a.json") as aside:
                aside.write_text("{}")
                left = aside.name
        (tmp_path / left).write_text("{")
        assert files.sweep([tmp_path / "a.json"]) == 1

    def test_what_a_living_process_writes_stays(self, tmp_path):
        with files.atomic(tmp_path / "a.json") as aside:
            aside.write_text("{}")
            assert files.sweep([tmp_path / "a.json"]) == files.sweep_below(tmp_path) == 0
        assert (tmp_path / "a.json").read_text() == "{}"

    def test_a_folder_on_another_disk_is_swept_too(self, tmp_path, left_aside):
        left = tmp_path / "disk" / "deep" / left_aside("a.nii.gz")
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "cohort").symlink_to(tmp_path / "disk")
        assert files.sweep_below(tmp_path / "run") == 1
        assert files.sweep_below(tmp_path / "nowhere") == 0

    def test_another_computer_s_file_stays_for_a_day(self, tmp_path):
        other = f"{int(files._host(), 16) ^ 1:04x}"
        left = tmp_path / "deep" / f".{other}-1-0a1b2c3d.a.json"
        left.parent.mkdir()
        left.write_text("{")
        assert files.sweep_below(tmp_path) == 0
        os.utime(left, (1e9, 1e9))
        assert files.sweep_below(tmp_path) == 1


class TestChecksum:
    def test_equals_hashlib(self, tmp_path):
        (tmp_path / "a").write_bytes(b"motion")
        assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"motion").hexdigest()


class TestCodeKey:
    @pytest.fixture
    def package(self, tmp_path):
        for name in ("motion/a.py", "motion/deep/b.py", "splits.py", "other.py"):
            files.write_text(tmp_path / name, f"# {name}\n")
        return tmp_path

    @pytest.mark.parametrize("name", ["motion/a.py", "motion/deep/b.py", "splits.py"])
    def test_a_change_of_any_file_of_a_room_changes_it(self, package, name):
        before = files.code_key("motion", "splits.py", package=package)
        (package / name).write_text("# changed\n")
        assert files.code_key("motion", "splits.py", package=package) != before

    def test_a_new_file_in_a_room_changes_it(self, package):
        before = files.code_key("motion", package=package)
        (package / "motion" / "c.py").write_text("")
        assert files.code_key("motion", package=package) != before

    def test_other_rooms_do_not_matter(self, package):
        before = files.code_key("motion", "splits.py", package=package)
        (package / "other.py").write_text("# changed\n")
        assert files.code_key("motion", "splits.py", package=package) == before

    @pytest.mark.parametrize("room", ["nowhere", "nowhere.py", "motion/c.py"])
    def test_an_unknown_room_is_refused(self, package, room):
        with pytest.raises(ValueError, match="no room"):
            files.code_key("motion", room, package=package)


class TestIdentity:
    def replaced(self, path, content: bytes) -> list:
        """Identity of a file whose size and time stay while its content is another's."""
        before = path.stat()
        path.write_bytes(content.ljust(before.st_size, b"-"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return files.identity(path)

    def test_a_file_replaced_by_one_of_its_size_and_time_is_another(self, tmp_path):
        path = tmp_path / "scan.nii"
        path.write_bytes(b"one".ljust(3 * files.END_BYTES, b"-"))
        before = files.identity(path)
        assert files.identity(path) == before
        assert self.replaced(path, b"two") != before
        assert self.replaced(path, b"one") == before
        assert self.replaced(path, b"one".ljust(3 * files.END_BYTES - 1, b"-") + b"!") != before

    def test_an_equal_file_in_another_place_is_another(self, tmp_path):
        for name in "ab":
            (tmp_path / name).write_bytes(b"same")
            os.utime(tmp_path / name, (1, 1))
        assert files.identity(tmp_path / "a")[1:] == files.identity(tmp_path / "b")[1:]
        assert files.identity(tmp_path / "a") != files.identity(tmp_path / "b")

    def test_what_is_no_file_is_one_sentence(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileNotFoundError, match="is not there; expected an image"):
            files.identity(tmp_path / "none")
        for name in ("pipe", "."):
            with pytest.raises(ValueError, match="is no regular file; expected an image"):
                files.identity(tmp_path / name)
