"""Progress: lines of text where nobody looks, a bar in a notebook that somebody has open."""

import sys

import pytest

from motionlib.compute import engines
from motionlib.compute.engines import in_lab, progress_of, submit, text_progress


@pytest.fixture
def lab(monkeypatch):
    """A kernel as JupyterLab starts it; the bar itself is tqdm's textual one."""
    import tqdm
    import tqdm.auto

    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/02.ipynb")
    monkeypatch.delenv("MOTIONLIB_PROGRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ipykernel", engines)
    monkeypatch.setattr(tqdm.auto, "tqdm", tqdm.tqdm)


class TestTextProgress:
    def test_lines_come_no_oftener_than_asked(self):
        lines, seconds = [], iter([0.0, 14.0, 15.0, 15.0, 29.0, 31.0, 31.0])
        report = text_progress(15.0, lines.append, lambda: next(seconds))
        for line in "abcd":
            report(line)
        assert lines == ["b", "d"]


class TestInLab:
    def test_a_kernel_of_a_jupyter_server_has_a_frontend(self, lab):
        assert in_lab()

    def test_a_kernel_of_the_command_line_has_none(self, lab, monkeypatch, tmp_path):
        from motionlib.study.runner import kernel_environment

        with kernel_environment(tmp_path, {}):
            assert not in_lab()
        assert in_lab()

    @pytest.mark.parametrize("lacking", ["JPY_SESSION_NAME", "ipykernel"])
    def test_a_plain_process_has_none(self, lab, monkeypatch, lacking):
        monkeypatch.delenv("JPY_SESSION_NAME") if lacking.isupper() else None
        monkeypatch.delitem(sys.modules, "ipykernel") if lacking.islower() else None
        assert not in_lab()


class TestProgressOf:
    def test_the_bar_counts_every_task_and_shows_the_latest_line(self, lab, capsys):
        with progress_of("train", 3) as report:
            report("epoch 1")
            submit(abs, [-1, -2], label="train", progress=report)
            assert report.bar.n == 2
        printed = capsys.readouterr()
        assert "train" in printed.err
        assert "epoch 1" in printed.err
        assert printed.out == ""

    def test_without_a_frontend_no_bar_is_made(self, capsys):
        with progress_of("train", 2) as report:
            submit(abs, [-1, -2], label="train", progress=report)
        assert capsys.readouterr().err == ""
