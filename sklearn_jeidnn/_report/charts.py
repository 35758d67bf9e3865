"""Two charts, as HTML whose text keeps its size on any screen: lines in SVG, points and labels placed by share."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .contents import Contents
from .markup import Markup, tag
from .points import Figures
from .reliability import Bin
from .words import cost_text, count, percent

STEPS = (1, 2, 2.5, 5, 10)


class Axis(NamedTuple):
    """From ``low`` to ``high``, with marks."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, low: float, high: float, n_marks: int = 5) -> "Axis":
        """An axis that begins and ends at a mark."""
        wide = max(high - low, 1e-3) / n_marks
        size = 10 ** math.floor(math.log10(wide))
        step = next(size * step for step in STEPS if size * step >= wide * (1 - 1e-9))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(first * step, max(last, first + 1) * step, step)

    def share(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def marks(self) -> list[float]:
        n_marks = round((self.high - self.low) / self.step)
        return [self.low + i * self.step for i in range(n_marks + 1)]


def digits_of(step: float, most: int = 3) -> int:
    """Digits after the point that tell the marks of an axis apart."""
    return next((n for n in range(most) if abs(step * 10**n - round(step * 10**n)) < 1e-6), most)


class Chart(NamedTuple):
    """Two axes, on which things are placed."""

    x: Axis
    y: Axis

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Percent from the left and from the top."""
        return self.x.share(x), round(100 - self.y.share(y), 2)

    def mark(
        self, x: float, y: float, kind: str, title: str = "", id_: str | None = None
    ) -> Markup:
        """A point of some kind (see the style)."""
        left, top = self.place(x, y)
        style = f"left:{left}%;top:{top}%"
        return tag("span", class_=f"mark {kind}", style=style, title=title or None, id=id_)

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> Markup:
        """A line through points, to be put into :meth:`drawn`."""
        path = " ".join(",".join(map(str, self.place(*point))) for point in points)
        return tag("polyline", points=path, class_=kind, vector_effect="non-scaling-stroke")

    def drawn(
        self,
        lines: Sequence[Markup],
        marks: Sequence[Markup],
        *,
        x_label: str,
        y_label: str,
        x_texts: Sequence[str],
        y_texts: Sequence[str],
        summary: str,
    ) -> Markup:
        """The chart; those who do not see it are told the summary."""
        verticals = [self.line([(x, self.y.low), (x, self.y.high)], "grid") for x in self.x.marks]
        horizontals = [self.line([(self.x.low, y), (self.x.high, y)], "grid") for y in self.y.marks]
        drawing = tag(
            "svg", *verticals, *horizontals, *lines, viewBox="0 0 100 100",
            preserveAspectRatio="none", aria_hidden="true",
        )  # fmt: skip
        of_x = [
            tag("span", text, class_="x-mark", style=f"left:{self.x.share(x)}%")
            for x, text in zip(self.x.marks, x_texts, strict=True)
        ]
        of_y = [
            tag("span", text, class_="y-mark", style=f"top:{100 - self.y.share(y)}%")
            for y, text in zip(self.y.marks, y_texts, strict=True)
        ]
        plot = tag(
            "div", drawing, *of_x, *of_y, *marks, class_="plot", role="img", aria_label=summary
        )
        labels = tag("div", y_label, class_="y-label"), tag("div", x_label, class_="x-label")
        return tag("div", labels[0], plot, labels[1], class_="chart")


def frontier_chart(contents: Contents, unit: str) -> tuple[Markup, list[tuple[float, float]]]:
    """Accuracy over mean cost, and where each operating point lies in it, in percent."""
    points, costs = contents.frontier.points, contents.point.exit_costs
    accuracies = [p.accuracy.value for p in points] + [contents.plain.value]
    accuracies += contents.single_accuracies.tolist()
    all_costs = [*(p.mean_cost for p in points), *costs.tolist(), 1.0]
    x = Axis.over(0, max(all_costs))
    y = Axis.over(min(accuracies), min(1.0, max(accuracies) + 0.002))
    chart = Chart(x, y)
    best = [(p.mean_cost, p.accuracy.value) for p in _best(points)]
    singles = [
        chart.mark(
            cost,
            accuracy,
            "single",
            f"every sample at exit {i}: {percent(accuracy)} at cost {cost_text(cost)}",
        )
        for i, (cost, accuracy) in enumerate(zip(costs, contents.single_accuracies, strict=True))
    ]
    own = points[contents.frontier.own]
    marks = [
        *singles,
        chart.mark(
            1.0,
            contents.plain.value,
            "plain",
            f"full model: {percent(contents.plain.value)} at cost 1",
        ),
        *(chart.mark(p.mean_cost, p.accuracy.value, "point", _told(p)) for p in points),
        chart.mark(own.mean_cost, own.accuracy.value, "chosen", id_="chosen"),
    ]
    drawn = chart.drawn(
        [chart.line(best, "best")],
        marks,
        x_label=f"Mean cost of a sample ({unit}; full model = 1)",
        y_label="Accuracy",
        x_texts=[f"{value:.{digits_of(x.step)}f}" for value in x.marks],
        y_texts=[percent(value, digits_of(100 * y.step)) for value in y.marks],
        summary=f"Accuracy over mean cost of {count(len(points), 'operating point')}; the table says the same.",
    )
    return drawn, [chart.place(p.mean_cost, p.accuracy.value) for p in points]


def _best(points: Sequence[Figures]) -> list[Figures]:
    """The points, by cost, that are more accurate than all cheaper ones."""
    best: list[Figures] = []
    for point in points:
        if not best or point.accuracy.value > best[-1].accuracy.value:
            best.append(point)
    return best


def _told(figures: Figures) -> str:
    return f"{percent(figures.accuracy.value)} at cost {cost_text(figures.mean_cost)}"


def reliability_chart(bins: Sequence[Bin]) -> Markup:
    """Share of right answers over their mean probability."""
    x = Axis.over(min(0.9, min(own.mean for own in bins)), 1.0)
    y = Axis.over(min(x.low, min(own.right.low for own in bins)), 1.0)
    chart = Chart(x, y)
    errors = [
        chart.line([(own.mean, own.right.low), (own.mean, own.right.high)], "error") for own in bins
    ]
    marks = [
        chart.mark(
            own.mean,
            own.right.value,
            "point",
            f"{count(own.right.n_samples, 'answer')}: mean probability {percent(own.mean)}, right "
            f"{percent(own.right.value)}",
        )
        for own in bins
    ]
    x_texts, y_texts = (
        [percent(value, digits_of(100 * axis.step)) for value in axis.marks] for axis in (x, y)
    )
    return chart.drawn(
        [chart.line([(x.low, x.low), (x.high, x.high)], "diagonal"), *errors],
        marks,
        x_label="Mean probability of the answer",
        y_label="Answers that are right",
        x_texts=x_texts,
        y_texts=y_texts,
        summary="Share of right answers over their probability; the table says the same.",
    )
