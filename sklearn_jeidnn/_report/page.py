"""A report as one HTML page that asks for nothing from anywhere."""

import base64
import hashlib
from importlib import resources

from . import sections
from .contents import Contents
from .markup import Markup, empty, joined, tag
from .operating import operating_points
from .summary import header, summary, warnings

PARTS = (
    ("summary", "In short"),
    ("operating-points", "Operating points"),
    ("exits", "Exits"),
    ("calibration", "Calibration"),
    ("engines", "What answers"),
    ("guarantees", "What is guaranteed"),
    ("model-card", "Model card"),
)


def page(contents: Contents) -> bytes:
    """The whole page."""
    script, style = _resource("script.js"), _resource("style.css")
    head = tag(
        "head",
        empty("meta", charset="utf-8"),
        empty("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        empty("meta", name="viewport", content="width=device-width, initial-scale=1"),
        empty("meta", name="color-scheme", content="light dark"),
        tag("title", contents.title),
        tag("style", Markup(style)),
    )
    body = tag("body", _body(contents), tag("script", Markup(script)))
    return ("<!DOCTYPE html>\n" + tag("html", head, body, lang="en")).encode()


def _body(contents: Contents) -> Markup:
    links = tag("nav", *(tag("a", text, href=f"#{id_}") for id_, text in PARTS), aria_label="Parts")
    parts = [
        header(contents),
        links,
        warnings(contents),
        summary(contents),
        operating_points(contents),
        sections.exits(contents),
        sections.calibration(contents),
        sections.engines(contents),
        sections.guarantees(contents),
        sections.model_card(contents),
    ]
    return tag("main", joined(parts))


def _policy(script: str) -> str:
    """No script but this one runs, and nothing is loaded, whatever stands in the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
