"""One CSV for each run of a benchmark: each row says what was measured, where, and with what."""

import csv
import functools
import pathlib
import platform
import subprocess

import numpy
import sklearn
import skorch
import torch

import sklearn_jeidnn

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
# Read as text: a commit such as 77e1234 looks like a number.
TEXT = {"question", "commit"}


def write(question, rows, quick=False):
    """Write dicts as ``results/<question>.csv``, with versions, processor and commit; print where.

    Rows share their keys, and each names its ``seed``. Quick runs get a file of their own.
    """
    if not all("seed" in row for row in rows):
        raise ValueError(f"{question}: every row of a record names its seed.")
    setting = {**_setting(), "question": question}
    RESULTS.mkdir(exist_ok=True)
    path = _path(question, quick)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list({**setting, **rows[0]}))
        writer.writeheader()
        writer.writerows({**setting, **row} for row in rows)
    print(f"\nWritten: {path}")


def read(question, quick=False):
    """The rows of ``results/<question>.csv`` as dicts; numbers and truth values are such again."""
    with open(_path(question, quick), newline="") as file:
        return [
            {key: cell if key in TEXT else _value(cell) for key, cell in row.items()}
            for row in csv.DictReader(file)
        ]


def of_others(question, data, quick=False):
    """The stored rows, if any, of data sets that are not among ``data``, which are run again."""
    rows = read(question, quick) if is_there(question, quick) else []
    return [row for row in rows if row["data"] not in data]


def is_there(question, quick=False):
    """Whether a run has been recorded."""
    return _path(question, quick).exists()


def _path(question, quick):
    return RESULTS / f"{question}{'_quick' * quick}.csv"


def _value(cell):
    if cell in ("True", "False"):
        return cell == "True"
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _setting():
    """What every row says of the software and the machine."""
    return {
        "question": "",
        "commit": commit(),
        "sklearn_jeidnn": sklearn_jeidnn.__version__,
        "torch": torch.__version__,
        "skorch": skorch.__version__,
        "sklearn": sklearn.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "device": f"cpu {platform.machine()}",
        "processor": _processor(),
        "n_threads": torch.get_num_threads(),
    }


@functools.cache
def commit():
    """Short hash of what is measured, marked where files have changed since.

    Asked once, when a run starts: it may last for hours. Results do not count as changes, since
    one run's would mark the next one.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no", ":/", f":(exclude){RESULTS}")
    return _git("describe", "--always", "--exclude=*") + "-dirty" * bool(changed)


def _git(*arguments):
    answer = subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True)
    return answer.stdout.strip()


def _processor():
    """The processor's name; Linux alone tells it in a file."""
    told = pathlib.Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
