"""The README's blocks run as they stand, one after the other."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_the_readmes_blocks_run_and_say_what_they_say():
    names = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert names["clf"].score(names["X_test"], names["y_test"]) > 0.9
    assert names["own"].exits_ == ["1", "3"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example):
    result = subprocess.run([sys.executable, example], capture_output=True, text=True, cwd=ROOT)
    if "is missing" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
