"""``python -m sklearn_jeidnn serve DIRECTORY``: a web service of an exported classifier."""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return serve(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sklearn_jeidnn")
    commands = parser.add_subparsers(required=True, metavar="command")
    serving = commands.add_parser(
        "serve",
        help="answer requests with a classifier that was exported",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = serving.add_argument
    add("directory", help="what EarlyExitClassifier.export wrote")
    add("--host", default="127.0.0.1", help="address; 0.0.0.0 is reached from other machines")
    add("--port", type=int, default=8000)
    add("--budget", type=float, help="mean cost of requests that name none (default: as exported)")
    add("--threads", type=int, help="of a call (default: all cores but one)")
    add("--max-batch", type=int, default=256, help="samples that are answered together")
    add("--max-wait-ms", type=float, default=0.0, help="how long a call waits for more samples")
    add("--max-queue", type=int, default=4096, help="samples that may wait")
    add("--max-samples", type=int, default=1024, help="of a request")
    add("--max-bytes", type=int, default=2**23, help="of a request's body")
    add("--max-budgets", type=int, default=8, help="different budgets that requests may name")
    add("--body-timeout", type=float, default=10.0, help="seconds in which a body must come")
    add("--watch", action=argparse.BooleanOptionalAction, default=True, help="compare samples")
    add("--alpha", type=float, default=0.01, help="probability of a false alarm over all time")
    add("--confidence-level", type=float, default=0.9, help="of sets whose coverage is tracked")
    add("--max-remembered", type=int, default=10_000, help="samples kept for late labels")
    return parser


def serve(options: argparse.Namespace) -> int:
    """Load a predictor and serve it."""
    from .runtime import Predictor
    from .serving import create_app

    given = {
        name: value
        for name, value in vars(options).items()
        if name not in ("directory", "host", "port", "budget", "threads")
    }
    threads = max(1, (os.cpu_count() or 1) - 1) if options.threads is None else options.threads
    predictor = Predictor.load(options.directory, n_threads=threads)
    if options.budget is not None:
        predictor = predictor.at(budget=options.budget)
    app = create_app(predictor, **given)
    from ._serving.server import run

    # A thread that computes would else keep the other waiting for 5 milliseconds.
    sys.setswitchinterval(0.0005)
    print(f"Serving {options.directory} at http://{options.host}:{options.port}", flush=True)
    run(app, options.host, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
