"""HTML in which text is escaped unless it is known to be markup."""

import html
import json
from collections.abc import Sequence
from typing import Any


class Markup(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: str, **attributes: Any) -> Markup:
    """An element; children are escaped unless they are markup.

    Attributes of None or False are left out, those of True have no value; ``class_`` is ``class``, and an underscore
    within a name a hyphen.
    """
    inside = joined(children)
    return Markup(f"<{name}{_attributes(attributes)}>{inside}</{name}>")


def empty(name: str, /, **attributes: Any) -> Markup:
    """An element that has no end, such as ``img``."""
    return Markup(f"<{name}{_attributes(attributes)}>")


def joined(parts: Sequence[str]) -> Markup:
    """Text and markup one after the other."""
    return Markup("".join(escaped(part) for part in parts))


def escaped(text: str) -> Markup:
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def _attributes(attributes: dict[str, Any]) -> str:
    found = {
        name.rstrip("_").replace("_", "-"): value
        for name, value in attributes.items()
        if value is not None and value is not False
    }
    return "".join(
        f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
        for name, value in found.items()
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    class_: str = "",
    n_aside: int = 0,
) -> Markup:
    """A table that scrolls by itself where the page is narrow; the first cell of a row is its header.

    The first ``n_aside`` rows are set apart. The style turns rows into cards on a phone if the class says "cards".
    """
    header = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        _row(head, row, class_="aside" if number < n_aside else None)
        for number, row in enumerate(rows)
    ]
    inside = tag("table", tag("caption", caption), tag("thead", header), tag("tbody", *body))
    classes = f"scroll {class_}".strip()
    return tag("div", inside, class_=classes, role="region", aria_label=caption, tabindex="0")


def _row(head: Sequence[str], row: Sequence[str], class_: str | None) -> Markup:
    first, *others = zip(head, row, strict=True)
    cells = [tag("td", cell, data_label=name) for name, cell in others]
    return tag("tr", tag("th", first[1], scope="row", data_label=first[0]), *cells, class_=class_)


def data(values: Any, id_: str) -> Markup:
    """Values as JSON that a script of the page reads; nothing in it can end the element."""
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return tag("script", Markup(text), type="application/json", id=id_)
