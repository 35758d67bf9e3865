"""Errors in the code that the tests would miss: mutants that no test kills, and the share of those that are killed.

``python -m tests.mutation [FILE ...] [--sample N SEED] [--jobs N]``, from a checkout; runs on a copy of it. A mutant
is a source file with one small change; that file's tests run with it in a process of their own. A line with the
comment ``# equivalent mutant: REASON`` has none.
"""

import argparse
import ast
import copy
import gc
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import NamedTuple

import pytest

# Each source file, and the test files that run against it.
TESTED_BY = {
    "sklearn_jeidnn/_conformal/groups.py": ["tests/test_conformal.py"],
    "sklearn_jeidnn/_conformal/quantiles.py": ["tests/test_conformal.py"],
    "sklearn_jeidnn/_conformal/random_numbers.py": ["tests/test_conformal.py"],
    "sklearn_jeidnn/_conformal/rounding.py": ["tests/test_conformal.py"],
    "sklearn_jeidnn/_conformal/scores.py": ["tests/test_conformal.py"],
    "sklearn_jeidnn/_conformal/sets.py": ["tests/test_conformal.py"],
    "sklearn_jeidnn/metrics.py": ["tests/test_metrics.py"],
    "sklearn_jeidnn/_exits/policy.py": ["tests/test_policy.py"],
    "sklearn_jeidnn/_operate/calibration.py": ["tests/test_calibration.py"],
    "sklearn_jeidnn/_operate/certification.py": ["tests/test_certification.py"],
    "sklearn_jeidnn/_operate/drift.py": ["tests/test_drift.py"],
    "sklearn_jeidnn/_operate/risk.py": ["tests/test_risk.py"],
    "sklearn_jeidnn/_operate/temperatures.py": ["tests/test_temperatures.py"],
}
# pytest imports it, and torch with it, before every test file.
CONFTEST = "tests/conftest.py"
OWN_PACKAGES = ("sklearn_jeidnn", "tests")
LEAST_SCORE = 0.9
EXCLUDED = "# equivalent mutant:"
# A mutant has this many times the seconds of the unchanged code, and some more.
TIME_FACTOR, TIME_MARGIN = 4, 15

OPERATORS = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.RShift: ast.LShift},
}
_PAIRS = (
    *(("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("amin", "amax")),
    *(("any", "all"), ("floor", "ceil"), ("sum", "mean"), ("cumsum", "cumprod")),
    *(("zeros", "ones"), ("zeros_like", "ones_like")),
)
FUNCTIONS = {**dict(_PAIRS), **{second: first for first, second in _PAIRS}}
DELETED = (ast.Raise, ast.AugAssign, ast.Break, ast.Continue)


def changes(node):
    """What a node may be changed to: (node to replace, text) of each change."""
    if _may_be_left_out(node):
        yield node, "pass"
    if isinstance(node, ast.Return) and node.value is not None:
        yield node, "return None"
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield node, repr(_another(node.value))
    if isinstance(node, ast.UnaryOp):
        yield node, f"({ast.unparse(node.operand)})"
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield node, _with(node, op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = OPERATORS[type(operator)]()
            yield node, _with(node, ops=[*node.ops[:i], other, *node.ops[i + 1 :]])
    if isinstance(node, ast.If | ast.IfExp):
        yield node.test, f"(not ({ast.unparse(node.test)}))"
    if isinstance(node, ast.Call):
        yield from _changed_calls(node)


def _may_be_left_out(node):
    """Whether what follows can run without a statement: a name's first value is no test of the tests."""
    if isinstance(node, ast.Assign):
        return all(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets)
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return is_call or isinstance(node, DELETED)


def _another(number):
    if isinstance(number, bool):
        return not number
    return number + 1 if isinstance(number, int) else 1.5 * number or 1.0


def _with(node, **fields):
    changed = copy.copy(node)
    vars(changed).update(fields)
    return ast.unparse(changed)


def _changed_calls(node):
    for keyword in node.keywords:
        yield node, _with(node, keywords=[other for other in node.keywords if other is not keyword])
    if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        yield node.func, FUNCTIONS[node.func.id]
    if isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS:
        yield node.func, _with(node.func, attr=FUNCTIONS[node.func.attr])


def computing_nodes(node):
    """A node and those in it that decide what is computed: no annotations, decorators, messages."""
    yield node
    is_warning = isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
    if isinstance(node, ast.Raise | ast.JoinedStr) or is_warning:
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from computing_nodes(child)


class Mutant(NamedTuple):
    """A source file with one change."""

    file: str
    line: int
    source: bytes

    def __str__(self):
        changed = self.source.splitlines()[self.line - 1].decode().strip()
        return f"{self.file}:{self.line}: {changed}"


def mutants_of(file, source):
    """All mutants of a source file, given as bytes, in the order of its lines."""
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    found = []
    for node in computing_nodes(ast.parse(source)):
        for old, text in changes(node):
            begin = starts[old.lineno - 1] + old.col_offset
            end = starts[old.end_lineno - 1] + old.end_col_offset
            if EXCLUDED.encode() not in lines[old.lineno - 1]:
                mutated = source[:begin] + text.encode() + source[end:]
                found.append(Mutant(file, old.lineno, mutated))
    return sorted(found, key=lambda mutant: mutant.line)


def warm_up(test_files):
    """Import what tests import, and forget the modules of our own: those are imported anew with each mutant."""
    for file in [CONFTEST, *test_files]:
        importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for name in [name for name in sys.modules if name.split(".")[0] in OWN_PACKAGES]:
        del sys.modules[name]
    # pytest collects garbage at its end, which takes seconds of all that torch holds.
    gc.freeze()


def start_tests(mutant):
    """Run the tests of a mutant in a new process, which exits with 0 if they pass; answers its id."""
    path, as_it_stands = os.path.abspath(mutant.file), SourceFileLoader.get_code
    code, result = compile(mutant.source, path, "exec"), 1
    process = os.fork()
    if process:
        return process
    os.setsid()
    for stream in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    SourceFileLoader.get_code = lambda loader, name: (
        code if os.path.abspath(loader.path) == path else as_it_stands(loader, name)
    )
    try:
        result = pytest.main(["-xq", "-p", "no:cacheprovider", *TESTED_BY[mutant.file]])
    finally:
        os._exit(result)


def run_all(mutants, n_jobs, seconds):
    """Yield whether each mutant passes its tests, in order; ``seconds`` is the time limit of each file."""
    waiting, running, passed = list(enumerate(mutants)), {}, {}
    for number in range(len(mutants)):
        while number not in passed:
            while waiting and len(running) < n_jobs:
                started, mutant = waiting.pop(0)
                process = start_tests(mutant)
                running[process] = started, time.monotonic() + seconds[mutant.file]
            time.sleep(0.02)
            for process, (started, deadline) in list(running.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    passed[started] = status == 0
                    del running[process]
                elif time.monotonic() > deadline:
                    os.killpg(process, signal.SIGKILL)
        yield passed[number]


def seconds_unchanged(file):
    """Time of a file's tests as it stands."""
    begin = time.monotonic()
    unchanged = Mutant(file, 1, Path(file).read_bytes())
    if not next(run_all([unchanged], 1, {file: 600})):
        sys.exit(f"the tests of {file} fail without any change: {TESTED_BY[file]}")
    return time.monotonic() - begin


def report(files, sample, n_jobs):
    """Print mutants that live, and scores; answers the share that is killed."""
    mutants = [mutant for file in files for mutant in mutants_of(file, Path(file).read_bytes())]
    if sample:
        n_taken, seed = sample
        mutants = sorted(random.Random(seed).sample(mutants, min(n_taken, len(mutants))))
    warm_up([test for file in files for test in TESTED_BY[file]])
    seconds = {file: TIME_FACTOR * seconds_unchanged(file) + TIME_MARGIN for file in files}
    alive = []
    for mutant, lives in zip(mutants, run_all(mutants, n_jobs, seconds), strict=True):
        if lives:
            alive.append(mutant)
            print(mutant, flush=True)
    for file in files:
        n_all, n_alive = (sum(m.file == file for m in some) for some in (mutants, alive))
        print(f"{file}: {n_all - n_alive} of {n_all} killed")
    score = 1 - len(alive) / max(len(mutants), 1)
    print(f"score: {len(mutants) - len(alive)} of {len(mutants)} killed, {score:.1%}")
    return score


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(TESTED_BY)}")
    parser.add_argument("--sample", nargs=2, type=int, metavar=("N", "SEED"))
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    unknown = [file for file in asked.files if file not in TESTED_BY]
    if unknown:
        parser.error(f"no tests are known for {unknown}; give some of {list(TESTED_BY)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in OWN_PACKAGES:
            shutil.copytree(name, Path(folder, name))
        shutil.copy("pyproject.toml", folder)
        os.chdir(folder)
        sys.path.insert(0, folder)
        score = report(asked.files or list(TESTED_BY), asked.sample, asked.jobs)
    sys.exit(score < LEAST_SCORE)


if __name__ == "__main__":
    # Forked processes must not inherit threads; without plug-ins pytest starts sooner.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    main()
