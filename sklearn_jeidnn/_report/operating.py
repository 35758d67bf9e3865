"""The operating points of a report: a chart, a slider, what it shows, and the same as a table."""

import math
from typing import Any

from .charts import frontier_chart
from .contents import Contents
from .markup import Markup, data, empty, joined, table, tag
from .points import Figures
from .summary import apart, exit_name, unit_of
from .words import cost_text, count, interval, percent, set_size

FIELDS = (
    ("cost", "Mean cost", "cost_note"),
    ("accuracy", "Accuracy", "accuracy_note"),
    ("coverage", "Coverage of sets", "coverage_note"),
    ("set_size", "Mean set size", "set_size_note"),
)


def operating_points(contents: Contents) -> Markup:
    """The section with the slider."""
    chart, places = frontier_chart(contents, unit_of(contents))
    values = [_as_data(contents, i, place) for i, place in enumerate(places)]
    own = values[contents.frontier.own]
    return tag(
        "section",
        tag("h2", "Operating points"),
        tag("p", _explained(contents), class_="note"),
        tag(
            "div",
            tag("div", chart, _legend(), class_="figure"),
            tag("div", _slider(contents), _readouts(own), _bars(contents, own), class_="panel"),
            class_="columns",
        ),
        _points_table(contents),
        data(values, "points"),
        id="operating-points",
    )


def _explained(contents: Contents) -> str:
    if len(contents.frontier.points) == 1:
        return "This classifier has one operating point on these samples."
    return (
        "The same trained classifier can spend more or less. Each point of the chart is one setting; all figures are "
        "of these samples. They were not chosen on them, but whoever picks the best of many points here will find it a "
        "little worse on new samples."
    )


def _as_data(contents: Contents, i: int, place: tuple[float, float]) -> dict[str, Any]:
    """What the script shows of a point."""
    figures, level = contents.frontier.points[i], percent(contents.confidence_level, 0)
    coverage = figures.coverage
    texts = {
        "cost": cost_text(figures.mean_cost),
        "cost_note": f"of the full model's {unit_of(contents)}",
        "accuracy": percent(figures.accuracy.value),
        "accuracy_note": f"{interval(figures.accuracy)}; {apart(contents, figures.accuracy.value)}",
        "coverage": percent(None if coverage is None else coverage.value),
        "coverage_note": f"asked for: {level}. {interval(coverage)}"
        if coverage
        else "no sample calibrates sets",
        "set_size": set_size(figures.mean_set_size),
        "set_size_note": f"of {count(len(contents.facts.classes))} labels" if coverage else "",
        "code": _code(contents, i),
    }
    spoken = f"cost {texts['cost']}, accuracy {texts['accuracy']}"
    rates = [{"width": round(100 * rate, 2), "text": percent(rate)} for rate in figures.exit_rates]
    return {
        "values": [
            figures.mean_cost,
            figures.accuracy.value,
            None if coverage is None else coverage.value,
            figures.mean_set_size,
        ],
        "left": place[0],
        "top": place[1],
        "texts": texts,
        "spoken": spoken,
        "rates": rates,
        "own": i == contents.frontier.own,
    }


def _code(contents: Contents, i: int) -> str:
    """How to get the classifier of a point."""
    if i == contents.frontier.own:
        return "this classifier as it is"
    weight = _weight(contents.frontier.points[i])
    if contents.is_pipeline:
        return f"sklearn_jeidnn.pipeline.at(estimator, cost_weight={weight})"
    return f"clf.at(cost_weight={weight})"


def _weight(figures: Figures) -> str:
    return "" if math.isnan(figures.cost_weight) else repr(figures.cost_weight)


def _slider(contents: Contents) -> Markup:
    last, own = len(contents.frontier.points) - 1, contents.frontier.own
    slider = empty(
        "input", type="range", id="slider", min=0, max=last, step=1, value=own,
        autocomplete="off",
    )  # fmt: skip
    ends = tag("div", tag("span", "cheaper"), tag("span", "more expensive"), class_="ends")
    button = tag("button", "Back to this classifier", type="button", id="back", disabled=True)
    label = tag("label", "Operating point", for_="slider")
    return tag("div", label, slider, ends, button, class_="control needs-script", hidden=not last)


def _readouts(own: dict[str, Any]) -> Markup:
    texts = own["texts"]
    boxes = [
        tag(
            "div",
            tag("dt", title),
            tag("dd", tag("output", texts[name], for_="slider", data_field=name)),
            tag("dd", texts[note], class_="small", data_field=note),
        )
        for name, title, note in FIELDS
    ]
    code = tag("p", "In Python: ", tag("code", texts["code"], data_field="code"), class_="code")
    return joined([tag("dl", *boxes, class_="readouts", aria_live="polite"), code])


def _bars(contents: Contents, own: dict[str, Any]) -> Markup:
    rows = [
        tag(
            "li",
            tag("span", exit_name(summary), class_="bar-name", title=exit_name(summary)),
            tag("span", tag("span", class_="fill", style=f"width:{rate['width']}%"), class_="bar"),
            tag("span", rate["text"], class_="bar-text"),
        )
        for summary, rate in zip(contents.exits, own["rates"], strict=True)
    ]
    title = tag("h3", "Where samples leave at this point")
    return joined([title, tag("ol", *rows, class_="bars", id="bars")])


def _legend() -> Markup:
    entries = [
        ("point", "operating point"),
        ("chosen", "the point of the slider"),
        ("plain", "full model"),
        ("single", "one exit for all samples"),
    ]
    items = [tag("li", tag("span", class_=f"key {kind}"), text) for kind, text in entries]
    return tag("ul", *items, class_="legend", aria_hidden="true")


def _points_table(contents: Contents) -> Markup:
    rows = [
        [
            "this classifier" if i == contents.frontier.own else f"{figures.cost_weight:.3g}",
            cost_text(figures.mean_cost),
            percent(figures.accuracy.value),
            percent(None if figures.coverage is None else figures.coverage.value),
            set_size(figures.mean_set_size),
        ]
        for i, figures in enumerate(contents.frontier.points)
    ]
    head = ["Cost weight", "Mean cost", "Accuracy", "Coverage", "Mean set size"]
    found = table(head, rows, caption="All operating points")
    style = tag("style", Markup(".needs-script{display:none}"))
    return joined(
        [
            tag(
                "details",
                tag("summary", "All operating points as a table"),
                found,
                class_="needs-script",
            ),
            tag("noscript", style, found),
        ]
    )
