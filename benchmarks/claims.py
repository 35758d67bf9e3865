"""How a benchmark ends: targets, which may be missed, and regressions, which must hold.

A script's ``CLAIMS`` has two functions for each CSV that it writes: from its rows to the targets, and to
the regressions. They see nothing but rows, so ``--check`` runs them over the committed CSVs, and nothing is
fitted.
"""

import argparse
import operator
from collections.abc import Callable
from typing import NamedTuple

import records

RELATIONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


class Claim(NamedTuple):
    """A value beside its bound: ``Claim("accuracy", 0.97, ">=", 0.96)``."""

    name: str
    value: float
    relation: str
    bound: float

    @property
    def holds(self):
        """A value that is NaN was not measured, and holds nothing."""
        return bool(RELATIONS[self.relation](self.value, self.bound))

    @property
    def was_measured(self):
        return self.value == self.value


class Claims(NamedTuple):
    """Both are functions from the rows of one CSV to an iterable of :class:`Claim`."""

    targets: Callable
    regressions: Callable


def none(rows):
    """For a script that has no targets, or no regressions."""
    return []


def parser(description, *, quick):
    """An argument parser with ``--quick`` and ``--check``."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help=f"{quick}; proves nothing")
    options.add_argument(
        "--check", action="store_true", help="the claims alone, over the CSVs that are there"
    )
    return options


def parse(options, claims):
    """The arguments; with ``--check`` the claims over the script's CSVs, and the end."""
    arguments = options.parse_args()
    if arguments.check:
        settle(claims)
        raise SystemExit(0)
    # What is measured is what stands here when the run starts.
    records.commit()
    return arguments


def settle(claims, questions=None, quick=False):
    """Print the claims over some of the CSVs (default: all), and fail where a regression is broken.

    Quick runs are too small to prove anything: they print, and never fail.
    """
    questions = list(claims) if questions is None else questions
    broken = [claim for question in questions for claim in told(claims, question, quick)]
    if broken and not quick:
        raise SystemExit(f"{len(broken)} regressions are broken.")


def told(claims, question, quick=False):
    """Print the claims over one CSV; the regressions that are broken."""
    targets, regressions = over(claims, question, quick)
    print(f"\n{question}: {len(targets)} targets, {len(regressions)} regressions")
    for claim in targets:
        print(line("target", claim))
    for claim in regressions:
        print(line("regression", claim))
    return [claim for claim in regressions if not claim.holds]


def over(claims, question, quick=False):
    """(targets, regressions) over the rows of one CSV: lists of :class:`Claim`"""
    rows = records.read(question, quick)
    return list(claims[question].targets(rows)), list(claims[question].regressions(rows))


def line(kind, claim):
    value = f"{claim.value:.4g}" if claim.was_measured else "not measured"
    return f"  {kind:11}{verdict(kind, claim):13}{claim.name}: {value} {claim.relation} {claim.bound:.4g}"


def verdict(kind, claim):
    if claim.holds:
        return "holds"
    if not claim.was_measured:
        return "not measured"
    return "MISSED" if kind == "target" else "BROKEN"
