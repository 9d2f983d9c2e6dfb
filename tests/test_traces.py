"""What the commands write names no folder, user, computer or date, and they ask no other computer.

A scan carries what scans carry, a name and a date in its header and sidecar; the folders above it
are named after a patient, the account and the computer after a doctor and a hospital.
"""

import contextlib
import getpass
import json
import os
import platform
import re
import runpy
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest
import requests
from scoring_set import head, write_model

from motionlib import cli
from motionlib.preprocess import caps, finder

SECRETS = ("DOE^JANE", "doe_jane", "drhouse", "ward-7-pc", "19991231", "1999-12-31", "31.12.1999")
DAY = re.compile(r"(?<![\d-])(?:19|20)\d\d-[01]\d-[0-3]\d(?!\d)")
AGE = re.compile(r"\bage\D{0,12}(9\d|1[0-4]\d)\b", re.IGNORECASE)
PACKED = (".png", ".gz", ".npy", ".safetensors", ".pt")


@contextlib.contextmanager
def network_cut(note: Path):
    """Refuse other computers in this process; those that were asked stand in a file."""
    if not HOOKED:
        HOOKED.append(runpy.run_path(str(CUT)))  # its hook stays, and sleeps while nothing is set
    os.environ["NETWORK_ASKED"] = str(note)
    try:
        yield
    finally:
        del os.environ["NETWORK_ASKED"]


HOOKED: list[dict] = []
CUT = Path(__file__).parent / "cut_network" / "sitecustomize.py"


def write_patients(root: Path) -> Path:
    """Write twelve patients with two graded scans each, with names and dates where scans have."""
    rows = []
    for number in range(24):
        array, affine = head(number, moved=number % 2 == 1)
        image = nib.Nifti1Image(array.astype("int16"), affine)
        image.header["descrip"] = b"DOE^JANE 1999-12-31"
        image.header["aux_file"], image.header["db_name"] = b"doe_jane", b"19991231"
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE 19991231"))
        place = root / f"sub-{number // 2:02d}" / f"ses-{number % 2}" / "anat"
        place.mkdir(parents=True)
        name = f"sub-{number // 2:02d}_ses-{number % 2}_T1w"
        nib.save(image, place / f"{name}.nii.gz")
        facts = {"PatientName": "DOE^JANE", "AcquisitionDateTime": "1999-12-31T23:59:59"}
        (place / f"{name}.json").write_text(json.dumps(facts | {"MagneticFieldStrength": 3}))
        rows.append(
            (name, name[:6], (place / f"{name}.nii.gz").relative_to(root), 2 * (number % 2))
        )
    (root / "sub-00" / "ses-0" / "anat" / "sub-00_ses-0_run-9_T1w.nii.gz").write_bytes(b"none")
    people = [f"sub-{number:02d}\t{85 + number}\tF\n" for number in range(12)]
    (root / "participants.tsv").write_text("participant_id\tage\tsex\n" + "".join(people))
    columns = ["scan_id", "participant_id", "path", "motion_grade"]
    table = pd.DataFrame(rows, columns=columns).assign(age=[85 + n // 2 for n in range(24)])
    table.to_csv(root / "grades.tsv", sep="\t", index=False)
    return root


def write_odd(folder: Path) -> Path:
    """Write scans that cannot be read, two of them alike, and one without a path."""
    folder.mkdir()
    names = ("sub-08  Smith_T1w.nii", "sub-09_T1w.nii", "sub-10_T1w.nii")
    for name in names:
        (folder / name).write_bytes(b"none")
    rows = [f"{name[:-4]}\t{name}\tsub-8\n" for name in names]
    table = folder / "m.tsv"
    table.write_text("scan_id\tpath\tparticipant_id\n" + "".join(rows) + "sub-11_T1w\t\tsub-11\n")
    return table


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of what all commands have written, by absolute paths, with the network cut."""
    top = tmp_path_factory.mktemp("traces")
    scans = write_patients(top / "home" / "drhouse" / "doe_jane" / "my bids")
    model, out = write_model(top / "model"), top / "home" / "drhouse" / "out"
    patch = pytest.MonkeyPatch()
    patch.delenv("MOTIONLIB_DATA", raising=False)
    patch.setattr(platform, "node", lambda: "ward-7-pc")
    patch.setattr(socket, "gethostname", lambda: "ward-7-pc")
    patch.setattr(getpass, "getuser", lambda: "drhouse")
    for name in ("USER", "LOGNAME", "HOSTNAME"):
        patch.setenv(name, "ward-7-pc" if name == "HOSTNAME" else "drhouse")
    patch.setenv("HOME", str(top / "home" / "drhouse"))
    # the registration takes seconds a scan and writes nothing but these numbers
    qc = {"target": "none", "matrix": [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}
    patch.setattr(caps, "t1_linear", lambda scan, **how: (scan[0], scan[1], dict(qc)))
    patch.setattr(caps, "qc_picture", lambda volume, path: path)
    few = sorted(scans.glob("sub-0[01]/ses-*/anat/*.nii.gz"))
    key, secret = top / "key", out / "secret"
    key.write_text("0123456789abcdef\n")
    odd, mriqc = write_odd(scans.parent / "odd"), scans.parent / "group_T1w.tsv"
    mriqc.write_text("bids_name\tcjv\tefc\tfber\nsub-07_T1w\t0.4\t0.6\t90\n")
    calls = (
        ("score", scans, "--model", model, "--out", out / "score" / "s.tsv"),
        ("iqms", *few, "--out", out / "iqms" / "q.tsv", "--per-slice", out / "iqms" / "p.tsv",
         "--cache", out / "iqms" / "c.json"),
        ("simulate", few[0], out / "one.nii.gz"),
        ("simulate", scans / "grades.tsv", out / "moved", "--positions", "2", "--shard", "0/6"),
        ("preprocess", *few, "--out", out / "caps"),
        ("finetune", scans / "grades.tsv", "--from", model, "--task", "mov01vs2",
         "--out", out / "mine", "--epochs", "1", "--folds", "2"),
        ("score", few[0], "--model", out / "mine", "--out", out / "again.tsv"),
        ("score", *few, "--model", model, "--pseudonymise", key, "--out", secret / "s.tsv"),
        ("score", scans, "--model", model, "--pseudonymise", key, "--out", secret / "all.tsv"),
        ("iqms", *few, "--pseudonymise", key, "--out", secret / "q.tsv", "--overlay", secret,
         "--per-slice", secret / "p.tsv"),
        ("iqms", odd, "--pseudonymise", key, "--out", secret / "o.tsv", "--cache",
         secret / "c.json"),
        ("score", odd, "--model", model, "--pseudonymise", key, "--out", secret / "r.tsv"),
        ("iqms", mriqc, "--pseudonymise", key, "--out", secret / "m.tsv"),
    )  # fmt: skip
    try:
        with network_cut(top / "asked"):
            for words in calls:
                assert cli.main([str(word) for word in words]) in (0, 1), words
    finally:
        patch.undo()
    return out, top


def texts(folder: Path):
    """Names and texts of all that was written; of packed images their header."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.endswith((".nii.gz", ".nii")):
            image = nib.load(path)
            yield name, str(image.header) + str([e.get_content() for e in image.header.extensions])
        elif path.is_file() and path.suffix not in PACKED:
            # a picture inside a page is no text
            yield name, re.sub(r"base64,[\w+/=]+", "", path.read_text("utf-8", "replace"))


def test_pseudonyms_keep_scans_of_a_participant_together(tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    ids = ["sub-01_T1w", "siteA_sub-01_ses-2_T1w", "sub-02_T1w", "IXI1", "IXI2", ""]
    names = finder.pseudonyms(ids, str(key))
    people = [name[:20] for name in names.values()]
    assert people[0] == people[1]
    assert len(set(people)) == 5
    assert names[""] == ""
    key.write_bytes(b"short\n")
    with pytest.raises(ValueError, match="a key of 5 bytes"):
        finder.pseudonyms(ids, str(key))


def test_pseudonyms_stand_in_the_place_of_every_id(written):
    secret = written[0] / "secret"
    for name, text in texts(secret):
        assert not re.search(r"sub-\d\d(?![0-9a-f])", name + text), name
    names = [str(path.relative_to(secret)) for path in secret.rglob("*")]
    assert any(name.endswith("_foreground.png") for name in names)
    assert not any(re.search(r"sub-\d\d_", name) for name in names)
    few, every = (pd.read_csv(secret / f"{n}.tsv", sep="\t")["scan_id"] for n in ("s", "all"))
    rows = pd.read_csv(secret / "o.tsv", sep="\t")
    assert len(rows) == 4
    assert rows["reason"].str.len().max() < 200
    assert not any("Smith" in text for _, text in texts(secret))
    assert every.is_monotonic_increasing  # their first order would tell who they are
    assert few.isin(every).all()  # the same key gives the same names
    assert every.str[:20].nunique() == 12  # scans of one participant stay together
    assert every.is_unique


def test_no_command_asks_another_computer(written):
    assert not (written[1] / "asked").exists()


def test_one_that_did_would_be_seen(tmp_path):
    with network_cut(tmp_path / "asked"):
        with pytest.raises(OSError, match="the network is cut"):
            socket.create_connection(("192.0.2.1", 80), timeout=0.1)
        with pytest.raises(OSError, match="the network is cut"):
            requests.get("http://example.org", timeout=0.1)
        with socket.socket() as here, contextlib.suppress(ConnectionRefusedError):
            here.connect(("127.0.0.1", 9))
    assert (tmp_path / "asked").read_text().split() == ["192.0.2.1", "example.org"]


def test_everything_is_looked_at(written):
    seen = dict(texts(written[0]))
    for name in ("score/s.tsv", "score/s.html", "score/s.log", "score/s.tsv.journal", "iqms/q.log",
                 "iqms/c.json", "one.nii.gz", "one.json", "mine/model.json", "mine/report.html",
                 "mine/finetune.log", "mine/predictions.csv", "mine/work/mov01vs2.tsv",
                 "caps/dataset_description.json", "caps/qc/index.html"):  # fmt: skip
        assert name in seen
    assert any(name.startswith("moved/") and name.endswith(".json") for name in seen)


def test_no_name_of_a_patient_a_user_a_computer_or_a_folder(written):
    out, top = written
    listed = "caps/scans.tsv"  # the input of the command, by whole paths, which it reads again
    places = (*SECRETS, str(top), top.parent.name)
    found = {
        (name, secret)
        for name, text in texts(out)
        for secret in places
        if secret in text and name != listed
    }
    assert found == set()


def test_no_date_but_the_day_of_a_call_in_its_log(written):
    now = datetime.now(UTC)
    near = {(now + timedelta(days=n)).date().isoformat() for n in (-1, 0, 1)}
    found = {(name, day) for name, text in texts(written[0]) for day in DAY.findall(text)}
    assert {one for one in found if not (one[0].endswith(".log") and one[1] in near)} == set()


def test_no_age_above_89_in_a_page_a_log_or_a_model(written):
    ends = (".html", ".log", ".json", ".csv")
    found = {(n, m[0]) for n, t in texts(written[0]) if n.endswith(ends) for m in AGE.finditer(t)}
    assert found == set()


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("score /home/jane/scans --out /srv/a b/s.tsv", "score …/scans --out …/s.tsv"),
        ("report: /data/doe/out/s.html", "report: …/s.html"),
        (r"wrote 'C:\Users\jane\s.tsv'", r"wrote '…/s.tsv'"),
        *[("see https://example.org/a/b and 1/2 of a/b",) * 2],
    ],
)  # fmt: skip
def test_a_log_keeps_the_last_name_of_a_path(line, kept, tmp_path):
    log = cli.Logged(None, tmp_path / "a.log", [])
    log.keep([line, f"of a/b in {Path.home()}/x/y and {Path.cwd()}/z"])
    first, second = (tmp_path / "a.log").read_text().splitlines()
    assert first.partition(" ")[2] == kept
    assert second.endswith(" of a/b in …/y and …/z")
