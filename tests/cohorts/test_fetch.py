"""Fetching from a local server that cuts, lies, refuses and comes back."""

import gzip
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from motionlib.cli import main as cli
from motionlib.cohorts.fetch import DownloadError, Politeness, fetch
from motionlib.cohorts.ratings import find_mr_art, read_ixi_ratings, read_mr_art

FAST = Politeness(attempts=4, backoff_s=0.01, timeout_s=5)


class Mirror:
    """A small mirror: files, and faults to show for a number of times."""

    def __init__(self):
        self.files, self.faults, self.asked = {}, {}, []
        self.etag, self.ranges = True, True
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler):
        name = handler.path.lstrip("/")
        span = handler.headers.get("Range")
        self.asked.append((name, span))
        fault = self.faults.get(name, [])
        kind = fault.pop(0) if fault else None
        if name not in self.files:
            return handler.send_error(404)
        if isinstance(kind, int):
            return handler.send_error(kind)
        body = self.files[name]
        tag = hashlib.md5(body).hexdigest() if kind != "lie" else "0" * 32
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and self.ranges else 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start))
        if self.etag:
            handler.send_header("ETag", f'"{tag}"')
        handler.end_headers()
        part = body[start:]
        if kind == "cut":
            handler.wfile.write(part[: len(part) // 2])
            handler.close_connection = True
            return None
        handler.wfile.write(part)
        return None


@pytest.fixture
def mirror():
    """A running mirror, stopped afterwards."""
    made = Mirror()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def mr_art(mirror):
    """Three subjects of MR-ART, two scans each."""
    names = [f"sub-00010{n}_acq-{kind}_T1w" for n in (3, 4, 5) for kind in ("standard", "head")]
    remarks = ['"moved', "", 'nod"', "", "", ""]  # quotation marks must hide no row
    rows = zip(names, remarks, strict=True)
    lines = ["bids_name\tscore\tremark", *(f"{name}\t1\t{remark}" for name, remark in rows)]
    mirror.files["derivatives/scores.tsv"] = "\n".join(lines).encode()
    measures = ["bids_name\tcjv\tefc\tfber", *(f"{name}\t0.4\t0.5\t9.0" for name in names)]
    mirror.files["derivatives/mriqc-0.16.1/group_T1w.tsv"] = "\n".join(measures).encode()
    mirror.files["participants.tsv"] = b"participant_id\tsex\tage\nsub-000103\tF\t30\n"
    mirror.files["dataset_description.json"] = b"{}"
    for number, name in enumerate(names):
        content = bytes([number]) * 200_000
        mirror.files[f"{name[:10]}/anat/{name}.nii.gz"] = gzip.compress(content, 0)
    return mirror


@pytest.fixture
def ixi(mirror):
    """An archive of three subjects, with a stranger that must not be unpacked."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI035-IOP-0873"):
            _add(tar, f"{name}-T1.nii.gz", b"image " + name.encode())
        _add(tar, "../evil.txt", b"no")
        _add(tar, "../IXI099-HH-1211-T1.nii.gz", b"flattened")
    mirror.files |= {"IXI.xls": b"table", "IXI-T1.tar": packed.getvalue()}
    return mirror


def _add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def get(mirror, dest, name="mr-art", **options):
    return fetch(name, dest, base_url=mirror.url, politeness=FAST, **options)


def images(dest):
    return sorted(path.name for path in dest.rglob("*.nii.gz"))


class TestMrArt:
    def test_scores_come_first_then_all_images(self, mr_art, tmp_path):
        table = get(mr_art, tmp_path)
        assert set(table["status"]) == {"fetched"}
        assert len(images(tmp_path)) == 6
        assert mr_art.asked[1][0] == "derivatives/scores.tsv"
        one = tmp_path / table["file"].iloc[-1]
        assert hashlib.sha256(one.read_bytes()).hexdigest() == table["sha256"].iloc[-1]
        pd.testing.assert_frame_equal(
            pd.read_csv(tmp_path / "fetched.tsv", sep="\t", keep_default_na=False), table
        )

    @pytest.mark.parametrize(
        ("subset", "n"), [("tables", 0), ("0", 0), ("2", 4), ("sub-000105", 2), (None, 6)]
    )
    def test_subsets(self, mr_art, tmp_path, subset, n):
        get(mr_art, tmp_path, subset=subset)
        assert len(images(tmp_path)) == n

    def test_the_tables_alone_are_what_the_rated_scans_need(self, mr_art, tmp_path):
        call = ["fetch", "mr-art", str(tmp_path), "--base-url", mr_art.url, "--subset", "tables"]
        assert cli(call) == 0
        assert find_mr_art(tmp_path) == tmp_path
        table = read_mr_art(tmp_path)
        assert len(table) == 6
        assert set(table["motion_grade"]) == {0}
        assert not [name for name, _ in mr_art.asked if name.startswith("sub-")]

    def test_a_stranger_in_the_subset_is_refused(self, mr_art, tmp_path):
        with pytest.raises(ValueError, match="000999"):
            get(mr_art, tmp_path, subset="000999")

    def test_a_second_call_asks_for_nothing(self, mr_art, tmp_path):
        get(mr_art, tmp_path)
        mr_art.asked.clear()
        assert set(get(mr_art, tmp_path)["status"]) == {"kept"}
        assert mr_art.asked == []

    def test_a_name_that_leaves_the_folder_is_not_fetched(self, mr_art, tmp_path):
        mr_art.files["derivatives/scores.tsv"] += b"\n../../sub-1_T1w\t1\nsub-1/../x_T1w\t1"
        assert len(get(mr_art, tmp_path / "in")) == 10


class TestFaults:
    def test_a_cut_connection_goes_on_where_it_was(self, mr_art, tmp_path):
        name = next(name for name in mr_art.files if name.endswith("standard_T1w.nii.gz"))
        mr_art.faults[name] = ["cut", "cut"]
        assert set(get(mr_art, tmp_path)["status"]) == {"fetched"}
        assert (tmp_path / name).read_bytes() == mr_art.files[name]
        spans = [span for asked, span in mr_art.asked if asked == name]
        assert spans[0] is None
        assert all(span and span != "bytes=0-" for span in spans[1:])
        assert not list(tmp_path.rglob("*.part*"))

    def test_a_server_without_ranges_starts_again(self, mr_art, tmp_path):
        mr_art.ranges = False
        name = next(name for name in mr_art.files if name.endswith("standard_T1w.nii.gz"))
        mr_art.faults[name] = ["cut"]
        get(mr_art, tmp_path)
        assert (tmp_path / name).read_bytes() == mr_art.files[name]

    def test_a_killed_run_is_resumed_by_the_next(self, mr_art, tmp_path):
        name = next(name for name in mr_art.files if name.endswith("standard_T1w.nii.gz"))
        mr_art.faults[name] = ["cut"] * FAST.attempts
        table = get(mr_art, tmp_path).set_index("file")
        assert table.loc[name, "status"] == "failed"
        assert not (tmp_path / name).exists()
        assert (tmp_path / f"{name}.part").stat().st_size > 0
        mr_art.asked.clear()
        assert set(get(mr_art, tmp_path)["status"]) == {"kept", "fetched"}
        assert [asked for asked, _ in mr_art.asked if asked.startswith("sub-")] == [name]
        assert (tmp_path / name).read_bytes() == mr_art.files[name]

    def test_a_changed_file_is_not_glued_to_its_old_half(self, mr_art, tmp_path):
        name = next(name for name in mr_art.files if name.endswith("standard_T1w.nii.gz"))
        mr_art.faults[name] = ["cut"] * FAST.attempts
        get(mr_art, tmp_path)
        mr_art.files[name] = gzip.compress(b"another version" * 20_000, 0)
        get(mr_art, tmp_path)
        assert (tmp_path / name).read_bytes() == mr_art.files[name]

    def test_a_wrong_checksum_is_fetched_again(self, mr_art, tmp_path):
        mr_art.faults["participants.tsv"] = ["lie"]
        assert set(get(mr_art, tmp_path)["status"]) == {"fetched"}

    def test_a_checksum_that_stays_wrong_is_a_failed_row(self, mr_art, tmp_path):
        mr_art.faults["participants.tsv"] = ["lie"] * 9
        table = get(mr_art, tmp_path).set_index("file")
        assert "MD5" in table.loc["participants.tsv", "reason"]
        assert not (tmp_path / "participants.tsv").exists()
        assert len(images(tmp_path)) == 6

    def test_the_mirrors_list_of_checksums_is_used(self, mr_art, tmp_path):
        mr_art.etag = False
        mr_art.files["SHA256SUMS"] = f"{'0' * 64}  participants.tsv\n".encode()
        table = get(mr_art, tmp_path).set_index("file")
        assert "SHA-256" in table.loc["participants.tsv", "reason"]
        assert (table.drop("participants.tsv")["status"] == "fetched").all()

    def test_a_damaged_gzip_is_noticed_without_any_checksum(self, mr_art, tmp_path):
        mr_art.etag = False
        name = next(name for name in mr_art.files if name.endswith("standard_T1w.nii.gz"))
        mr_art.files[name] = mr_art.files[name][:-9]
        table = get(mr_art, tmp_path).set_index("file")
        assert "gzip" in table.loc[name, "reason"]

    def test_a_missing_file_is_a_row_and_not_tried_again(self, mr_art, tmp_path):
        name = next(name for name in mr_art.files if name.endswith("standard_T1w.nii.gz"))
        del mr_art.files[name]
        table = get(mr_art, tmp_path).set_index("file")
        assert "404" in table.loc[name, "reason"]
        assert [asked for asked, _ in mr_art.asked].count(name) == 1
        assert (table["status"] == "fetched").sum() == 9

    def test_a_busy_server_is_asked_again(self, mr_art, tmp_path):
        mr_art.faults["participants.tsv"] = [503, 429]
        assert set(get(mr_art, tmp_path)["status"]) == {"fetched"}

    def test_being_offline_is_one_sentence(self, tmp_path):
        dead = Mirror()
        dead.server.server_close()
        with pytest.raises(DownloadError, match="no connection"):
            get(dead, tmp_path)


class TestIxi:
    def test_the_archive_is_unpacked_and_nothing_else(self, ixi, tmp_path):
        dest = tmp_path / "ixi"
        get(ixi, dest, "ixi")
        assert len(images(dest)) == 4
        assert [path.name for path in tmp_path.iterdir()] == ["ixi"]
        assert not list(tmp_path.rglob("evil.txt"))

    def test_a_subset_unpacks_a_subset(self, ixi, tmp_path):
        get(ixi, tmp_path, "ixi", subset="IXI012,IXI035")
        assert [name[:6] for name in images(tmp_path)] == ["IXI012", "IXI035"]

    def test_the_table_alone(self, ixi, tmp_path):
        table = get(ixi, tmp_path, "ixi", subset="tables")
        assert list(table["file"]) == ["IXI.xls"]
        assert [name for name, _ in ixi.asked] == ["SHA256SUMS", "IXI.xls"]

    def test_a_broken_archive_is_removed(self, ixi, tmp_path):
        ixi.files["IXI-T1.tar"] = b"no archive"
        table = get(ixi, tmp_path, "ixi").set_index("file")
        assert table.loc["IXI-T1.tar", "status"] == "failed"
        assert not (tmp_path / "IXI-T1.tar").exists()


class TestIxiRatings:
    def test_both_tables_come_checksummed_and_are_read(self, mirror, tmp_path):
        mirror.files["S2_Data.csv"] = b"bids_name,cjv\n"
        mirror.files["S1_Data.tsv"] = (
            b"rater_id\trating\tartifacts\tdefaced\tsubject\n"
            b'rater_01\t2\t"[""head-motion"",""inu""]"\t0\t035\n'
            b"rater_01\t4\t[]\t0\t035\nrater_01\t3\t[]\t1\t035\n"
        )
        call = ["fetch", "ixi-ratings", str(tmp_path), "--base-url", mirror.url]
        mirror.faults["S1_Data.tsv"] = ["cut"]
        assert cli(call) == 0
        table = pd.read_csv(tmp_path / "fetched.tsv", sep="\t").set_index("file")
        digest = hashlib.sha256(mirror.files["S1_Data.tsv"]).hexdigest()
        assert table.loc["S1_Data.tsv", "sha256"] == digest
        (row,) = read_ixi_ratings(tmp_path).to_dict("records")
        assert row == {
            "participant_id": "sub-IXI035",
            "motion_votes": 1,
            "n_verdicts": 2,
            "quality_rating": 3.0,
        }


class TestCommand:
    def test_exit_statuses(self, mr_art, tmp_path, capsys):
        call = ["fetch", "mr-art", str(tmp_path), "--base-url", mr_art.url, "--attempts", "1"]
        assert cli([*call, "--subset", "1"]) == 0
        assert "6 fetched" in capsys.readouterr().out
        del mr_art.files["sub-000104/anat/sub-000104_acq-head_T1w.nii.gz"]
        assert cli(call) == 1
        assert cli([*call, "--subset", "nobody"]) == 2
        assert cli(["fetch", "oasis", str(tmp_path)]) == 2
        mr_art.server.shutdown()
        mr_art.server.server_close()
        other = [*call[:2], str(tmp_path / "new"), *call[3:]]
        assert cli(other) == 1
        assert "no connection" in capsys.readouterr().err
