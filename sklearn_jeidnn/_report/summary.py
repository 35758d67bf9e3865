"""The first part of a report: what the classifier does to these samples, in plain words."""

from .contents import Contents
from .exits import ExitSummary
from .markup import Markup, joined, tag
from .words import cost_text, count, interval, percent, points_apart, set_size


def unit_of(contents: Contents) -> str:
    """What costs are counted in."""
    return "computation" if contents.plain_seconds is None else "run time"


def exit_name(summary: ExitSummary) -> str:
    """Number of an exit, and where it is."""
    return f"{summary.number} ({summary.name})"


def header(contents: Contents) -> Markup:
    facts = contents.facts
    return tag(
        "header",
        tag("h1", contents.title),
        tag(
            "p",
            f"A classifier that leaves early where it is sure, on {count(len(contents.point), 'labelled sample')} of "
            f"{count(len(facts.classes), 'class').replace('classs', 'classes')}. Written on {facts.date:%d %B %Y}.",
            class_="lead",
        ),
    )


def warnings(contents: Contents) -> Markup:
    """What a reader must know before any number."""
    texts = []
    if contents.known.any:
        texts.append(
            known_text(contents) + " The figures below are too good to hold for new samples."
        )
    texts += contents.notes
    if contents.certificates.leakage is not None:
        texts.append(
            f"Nothing is guaranteed: {contents.certificates.leakage}. Prediction sets and probabilities may be too "
            f"sure of themselves."
        )
    if contents.alike is not None and contents.alike < 0.01:
        texts.append(
            f"These samples are not like those that calibrated the classifier (p-value {contents.alike:.2g}), so "
            f"prediction sets need not hold the truth as often as they say."
        )
    return joined(
        [tag("p", tag("strong", "Beware. "), text, class_="warning", role="note") for text in texts]
    )


def known_text(contents: Contents) -> str:
    """Which of the samples the classifier has seen before."""
    known = contents.known
    parts = [
        (known.n_learned, "trained its networks or set its gates"),
        (known.n_calibrated, "calibrated its prediction sets"),
    ]
    said = ", and ".join(f"{count(n)} of {count(known.n_samples)} {what}" for n, what in parts if n)
    return f"The classifier has seen these samples before: {said}."


def summary(contents: Contents) -> Markup:
    items = [
        _accuracy(contents),
        _leaving(contents),
        _sets(contents),
        _alternative(contents),
        _certified(contents),
    ]
    return tag(
        "section",
        tag("h2", "In short"),
        tag("ul", *(tag("li", item) for item in items if item), class_="short"),
        tag(
            "p",
            "The full model is the last member of the classifier (the plain backbone) by itself: every sample runs "
            "through all of it. All costs are relative to one such pass.",
            class_="note",
        ),
        id="summary",
    )


def _accuracy(contents: Contents) -> str:
    own = contents.point.figures
    return (
        f"It is right on {percent(own.accuracy.value)} of these samples ({interval(own.accuracy)}) at "
        f"{cost_text(own.mean_cost)} of the full model's {unit_of(contents)}. The full model is right on "
        f"{percent(contents.plain.value)}."
    )


def _leaving(contents: Contents) -> str:
    first, last = contents.exits[0], contents.exits[-1]
    if first.rate == 1:
        return f"All samples leave at the first exit, at cost {cost_text(first.cost)}."
    return (
        f"{percent(first.rate, 0)} of samples leave at the first exit, at cost {cost_text(first.cost)}; "
        f"{percent(last.rate, 0)} run to the end, at cost {cost_text(last.cost)}."
    )


def _sets(contents: Contents) -> str:
    own, level = contents.point.figures, percent(contents.confidence_level, 0)
    if own.coverage is None:
        return "There are no prediction sets: no sample calibrates them."
    sizes = contents.point.set_sizes
    assert sizes is not None
    of_one, of_none = (percent(float((sizes == n).mean()), 0) for n in (1, 0))
    return (
        f"Its prediction sets, made to hold the truth for at least {level} of samples, hold it for "
        f"{percent(own.coverage.value)} of these{_by_chance(contents)}. They have {set_size(own.mean_set_size)} labels "
        f"on average; {of_one} have one label, and {of_none} none."
    )


def _by_chance(contents: Contents) -> str:
    """Where coverage may lie by chance, if that is known."""
    band = contents.certificates.band
    if band is None:
        return ""
    return f" (by chance alone it may be {100 * band[0]:.1f} to {percent(band[1])})"


def _alternative(contents: Contents) -> str:
    single = contents.single_that_suffices
    if single is None:
        return ""
    what = "without early exits" if single is contents.exits[-1] else "with one exit"
    return (
        f"A simpler classifier, {what}, may do: if every sample left at exit {exit_name(single)}, at cost "
        f"{cost_text(single.cost)}, it would be right on "
        f"{percent(float(contents.single_accuracies[single.number]))}, and these samples do not show that choosing "
        f"among exits is better."
    )


def _certified(contents: Contents) -> str:
    risk = contents.certificates.risk
    if risk is None:
        return "No limit on its errors or its cost is certified."
    return certified_text(contents)


def certified_text(contents: Contents) -> str:
    """What was certified, in one or two sentences."""
    risk = contents.certificates.risk
    assert risk is not None
    what = {
        "accuracy_drop": f"accuracy is at most {100 * risk.limit:g} points below the full model's",
        "disagreement": f"at most {percent(risk.limit)} of labels differ from the full model's",
        "mean_cost": f"mean cost is at most {risk.limit:.3g}",
    }[risk.risk]
    confidence = percent(risk.confidence, 0)
    if risk.certified:
        return (
            f"Certified with {confidence} confidence, on {count(risk.n_samples, 'sample')}: {what}, on samples like "
            f"those (measured there: {risk.estimate:.3g}; p-value {risk.p_value:.2g})."
        )
    return (
        f"Not certified: {count(risk.n_samples, 'sample')} did not show, with {confidence} confidence, that {what}. So "
        f"the classifier takes the operating point that needs no test."
    )


def apart(contents: Contents, accuracy: float) -> str:
    return points_apart(accuracy, contents.plain.value)
