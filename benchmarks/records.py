"""One CSV for each run of a benchmark, and its claims checked at the end."""

import csv
import pathlib
import platform
import subprocess

import sklearn
import skorch
import torch

import sklearn_jeidnn

RESULTS = pathlib.Path(__file__).resolve().parent / "results"


def write(question, records):
    """Write dicts with the same keys as ``results/<question>.csv``, with versions and machine; print where."""
    setting = {
        "question": question,
        "commit": _commit(),
        "sklearn_jeidnn": sklearn_jeidnn.__version__,
        "torch": torch.__version__,
        "skorch": skorch.__version__,
        "sklearn": sklearn.__version__,
        "device": f"cpu {platform.machine()}",
        "n_threads": torch.get_num_threads(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{question}.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list({**setting, **records[0]}))
        writer.writeheader()
        writer.writerows({**setting, **record} for record in records)
    print(f"\nWritten: {path}")


def _commit():
    """Short hash of what is measured, marked where files have changed since."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    answer = subprocess.run(git, cwd=RESULTS.parent, capture_output=True, text=True)
    return answer.stdout.strip()


def check(claims):
    """Print each claim, (what it says, whether it holds), and fail where one does not hold."""
    print("\nClaims")
    for claim, holds in claims:
        print(f"  {'holds ' if holds else 'BROKEN'} {claim}")
    broken = [claim for claim, holds in claims if not holds]
    if broken:
        raise SystemExit(f"{len(broken)} of {len(claims)} claims do not hold.")
