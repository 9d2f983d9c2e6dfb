"""The page on reliability prints what was measured, and the measurements show no fault."""

import chaos_tables
import pandas as pd
import pytest

from motionlib.files import repository

RESULTS = repository() / "benchmarks" / "results"
MEASURED = [name for name in chaos_tables.RESULTS if (RESULTS / f"{name}.csv").is_file()]


def test_the_page_has_the_measured_tables():
    page = (repository() / "docs" / "reliability.md").read_text("utf-8")
    assert chaos_tables.filled(page, RESULTS) == page
    assert page.count(":start -->\n|") == len(MEASURED) > 0


def test_a_changed_measurement_would_be_seen(tmp_path):
    for name in MEASURED:
        table = pd.read_csv(RESULTS / f"{name}.csv")
        if name == "kills":
            table["kills"] += 1
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    page = (repository() / "docs" / "reliability.md").read_text("utf-8")
    assert chaos_tables.filled(page, tmp_path) != page


@pytest.mark.parametrize("name", MEASURED)
def test_no_fault_was_measured(name):
    table = pd.read_csv(RESULTS / f"{name}.csv")
    assert table[FAULTS[name]].to_numpy().sum() == 0


FAULTS = {
    "kills": ["differing", "tracebacks"],
    "fuzz": ["fault"],
    "determinism": ["again", "two_threads", "two_processes"],
    "scale": ["repeated", "lost", "differing", "left_aside"],
    "many_scans": ["failed"],
}
