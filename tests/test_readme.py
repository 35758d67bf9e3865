"""The code blocks of the README and of the guide run as they stand, one after the other; so do the examples."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run_blocks(page):
    """Names that the page's Python blocks leave; later blocks use those of earlier ones."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, page.name, "exec"), names)
    return names


def anchors(page):
    """Names under which the page's headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readmes_blocks_run_and_say_what_they_say(capsys):
    names = run_blocks(ROOT / "README.md")
    assert names["clf"].score(names["X_test"], names["y_test"]) > 0.9
    assert "of the cost" in capsys.readouterr().out


def test_the_guides_blocks_run_and_say_what_they_say():
    names = run_blocks(ROOT / "docs" / "guide.md")
    assert names["clf"].score(names["X_test"], names["y_test"]) > 0.9
    assert names["own"].exits_ == ["1", "3"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_within_the_repository_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example):
    result = subprocess.run([sys.executable, example], capture_output=True, text=True, cwd=ROOT)
    if "is missing" in result.stderr or "needs transformers" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
