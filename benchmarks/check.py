"""Do the claims of all benchmarks hold over the committed CSVs? Nothing is fitted.

python benchmarks/check.py            # what is missed or broken
python benchmarks/check.py --all      # what holds, too
"""

import argparse
import importlib.util
import pathlib
import sys

import claims

HERE = pathlib.Path(__file__).resolve().parent


def load(path):
    """A script as a module, under a name of its own: coverage.py shares its name with a package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scripts():
    """{name: claims by CSV} of the scripts that end in claims"""
    modules = {path.stem: load(path) for path in sorted(HERE.glob("*.py")) if path.stem != "check"}
    return {name: found.CLAIMS for name, found in modules.items() if hasattr(found, "CLAIMS")}


def run():
    """[(CSV, "target" or "regression", claim)] of all scripts"""
    found = []
    for of_script in scripts().values():
        for question in of_script:
            targets, regressions = claims.over(of_script, question)
            found += [(question, "target", claim) for claim in targets]
            found += [(question, "regression", claim) for claim in regressions]
    return found


def report(found, everything):
    """The claims, those that hold only if asked for, and how many there are; whether all regressions hold."""
    shown = None
    for question, kind, claim in found:
        if everything or not claim.holds:
            if question != shown:
                print(question)
            print(claims.line(kind, claim))
            shown = question
    for kind in ("target", "regression"):
        own = [claim.holds for _, own_kind, claim in found if own_kind == kind]
        print(f"{kind}s: {sum(own)} of {len(own)} hold")
    return all(claim.holds for _, kind, claim in found if kind == "regression")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="claims that hold, too")
    sys.exit(not report(run(), parser.parse_args().all))
