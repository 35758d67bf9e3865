"""What the benchmarks claim holds over the committed figures, and the pages' tables are made from these."""

import importlib
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script as the scripts import each other."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} & set(sys.modules):
        # Some share their names with packages.
        if BENCHMARKS == pathlib.Path(sys.modules[name].__file__ or "").parent:
            del sys.modules[name]


@pytest.fixture
def records(script, tmp_path, monkeypatch):
    """The module, its results in a folder of the test's own."""
    records = script("records")
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(records, "commit", lambda: "1e23456")
    return records


# A process of its own: coverage.py and datasets.py share their names with packages.
def test_regressions_hold_over_the_committed_figures_and_no_csv_goes_unread():
    check = [sys.executable, BENCHMARKS / "check.py", "--all"]
    told = subprocess.run(check, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    committed = {path.stem for path in (BENCHMARKS / "results").glob("*.csv")}
    read = set(told.stdout.splitlines())
    assert {name for name in committed if not name.endswith("_quick")} <= read


def test_rows_are_read_as_they_were_written(records):
    rows = [{"seed": 0, "budget": 0.5, "same": True, "in_front": "trees, two"}]
    records.write("question", rows)
    (read,) = records.read("question")
    assert rows[0].items() <= read.items()
    assert read["commit"] == "1e23456"
    assert read.keys() >= {"torch", "sklearn", "numpy", "processor", "n_threads"}


def test_rows_without_a_seed_are_refused(records):
    with pytest.raises(ValueError, match="seed"):
        records.write("question", [{"accuracy": 0.9}])


def test_a_broken_regression_fails_and_a_missed_target_does_not(script, records, capsys):
    exactness, claims = script("exactness"), script("claims")
    row = {"data": "letter", "seed": 0, "n_rows": 10, "moved": 0, "fits_identical": True}
    records.write("exactness", [row])
    claims.settle(exactness.CLAIMS)
    records.write("exactness", [{**row, "moved": 1}])
    with pytest.raises(SystemExit, match="1 regressions are broken"):
        claims.settle(exactness.CLAIMS)
    as_target = claims.Claims(exactness.regressions, claims.none)
    claims.settle({"exactness": as_target})
    assert "MISSED" in capsys.readouterr().out


def test_what_was_not_measured_holds_nothing(script):
    claims = script("claims")
    assert claims.Claim("accuracy", 0.9, ">=", 0.9).holds
    assert not claims.Claim("accuracy", float("nan"), ">=", 0.9).holds
    assert not claims.Claim("accuracy", float("nan"), "<=", 0.9).holds


def test_tables_are_written_between_their_markers_once(script, tmp_path):
    report = script("report")
    page = tmp_path / "page.md"
    page.write_text(
        "Before.\n\n<!-- table: set_speed -->\n| old |\n<!-- end -->\n\nBetween.\n\n"
        "<!-- table: low_cost_tables -->\n<!-- end -->\nAfter.\n"
    )
    assert report.run([page], only_check=True) == [page]
    assert report.run([page], only_check=False) == [page]
    written = page.read_text()
    assert "MAPIE" in written and "Adult" in written and "old" not in written
    assert (
        written.startswith("Before.\n") and "Between." in written and written.endswith("After.\n")
    )
    assert report.run([page], only_check=True) == []


def test_a_table_that_nobody_makes_is_refused(script):
    with pytest.raises(ValueError, match="no_such"):
        script("report").filled("<!-- table: no_such -->\n<!-- end -->\n")
