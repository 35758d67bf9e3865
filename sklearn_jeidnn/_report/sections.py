"""The parts of a report behind the operating points: exits, calibration, engines, guarantees, the model card."""

from collections.abc import Sequence

from .charts import reliability_chart
from .contents import Contents
from .exits import Example, ExitSummary
from .markup import Markup, empty, joined, table, tag
from .pictures import Pictures
from .shown import Table, Texts, as_text
from .summary import certified_text, exit_name
from .words import NOTHING, cost_text, count, percent, set_size

UNTIMED = (
    "Nothing was timed for this report. Costs are not times: how much of the saved computation the clock shows depends "
    "on the machine and on the size of calls."
)
# Of the classes that are listed by name.
MOST_CLASSES = 30
SCORES = {
    "lac": "the probability of the label (LAC)",
    "aps": "the probability of all likelier labels (APS)",
    "raps": "the probability of all likelier labels, with a penalty for large sets (RAPS)",
}
GROUPS = {
    "pooled": "on average over all samples",
    "exit": "for the samples that leave at each exit",
    "class": "for the samples of each class",
    "exit_and_class": "for the samples of each class at each exit",
}


def exits(contents: Contents) -> Markup:
    head = ["Exit", "Cost", "Samples", "Share", "Accuracy", "Coverage", "Mean set size"]
    rows = [
        [
            exit_name(own),
            cost_text(own.cost),
            count(own.n_samples),
            percent(own.rate),
            percent(own.accuracy.value),
            percent(None if own.coverage is None else own.coverage.value),
            set_size(own.mean_set_size),
        ]
        for own in contents.exits
    ]
    return tag(
        "section",
        tag("h2", "Exits"),
        tag(
            "p",
            "What leaves where at the classifier's own operating point. Accuracies of two exits are of different "
            "samples: hard ones stay longer.",
            class_="note",
        ),
        table(head, rows, caption="Samples by exit", class_="by-exit"),
        *_examples(contents),
        id="exits",
    )


def _examples(contents: Contents) -> list[Markup]:
    if contents.shown is None:
        return [tag("p", "Examples are left out of this report.", class_="note")]
    return [
        tag(
            "div",
            tag("h3", f"Exit {exit_name(own)}"),
            tag(
                "p",
                f"{count(own.n_samples, 'sample')}; from the surest answer to the least sure.",
                class_="note",
            ),
            _examples_at(contents, own),
            class_="exit",
        )
        for own in contents.exits
        if own.examples
    ]


def _examples_at(contents: Contents, own: ExitSummary) -> Markup:
    if isinstance(contents.shown, Pictures):
        pictures = [_picture(contents.shown, example) for example in own.examples]
        return tag("ul", *pictures, class_="pictures")
    if isinstance(contents.shown, Texts):
        head = ["Sample", "Answer", "Probability", "Text"]
        rows = [
            [*_answered(example), contents.shown.words(example.number)] for example in own.examples
        ]
        return table(head, rows, caption=f"Examples at exit {own.number}", class_="texts cards")
    return _rows(contents, own)


def _answered(example: Example) -> list[str]:
    return [f"{example.number}", _verdict(example), percent(example.probability)]


def _verdict(example: Example) -> Markup:
    """The answer, and the truth if that is another."""
    if example.truth == example.answer:
        return tag("span", as_text(example.answer))
    wrong = tag("span", "✗ wrong", class_="wrong")
    return tag("span", as_text(example.answer), " ", wrong, f" (truth: {as_text(example.truth)})")


def _picture(pictures: Pictures, example: Example) -> Markup:
    what = f"sample {example.number}, truth {example.truth}, answer {example.answer}"
    image = empty("img", src=pictures.data_uri(example.number), alt=what, width=72)
    caption = tag(
        "span",
        _verdict(example),
        tag("span", percent(example.probability), class_="small"),
        class_="caption",
    )
    return tag("li", image, caption)


def _rows(contents: Contents, own: ExitSummary) -> Markup:
    """Rows of a table, in the columns that tell most of the exit."""
    assert isinstance(contents.shown, Table)
    names = [as_text(feature.name) for feature in own.features]
    means = [["all here", "", "", *(feature.here for feature in own.features)]]
    caption = f"Examples at exit {own.number}"
    if own.rate < 1:
        means.append(["elsewhere", "", "", *(feature.elsewhere for feature in own.features)])
        caption += ", in the columns in which its samples differ most from the others"
    rows = [
        [*_answered(example), *(as_text(f.values[example.number]) for f in own.features)]
        for example in own.examples
    ]
    return table(
        ["Sample", "Answer", "Probability", *names],
        [*means, *rows],
        caption=caption,
        class_="examples cards",
        n_aside=len(means),
    )


def calibration(contents: Contents) -> Markup:
    bins, error = contents.reliability.bins, contents.reliability.error
    rows = [
        [
            f"{100 * own.low:g} to {percent(own.high, 0)}",
            count(own.right.n_samples),
            percent(own.mean),
            percent(own.right.value),
            f"{100 * own.right.low:.1f} to {percent(own.right.high)}",
        ]
        for own in bins
    ]
    head = ["Probability", "Samples", "Mean", "Right", "95\u00a0% interval"]
    text = (
        "Of the answers with a probability of 90 %, 90 % should be right: points should lie on the line, as far as "
        "their intervals allow. "
    )
    far = f"Beyond chance, probabilities are {percent(error)} off (root mean square). " * (
        error == error
    )
    return tag(
        "section",
        tag("h2", "Calibration"),
        tag("p", text + far, class_="note"),
        tag("div", tag("div", reliability_chart(bins), class_="figure small-figure"),
            table(head, rows, caption="How often answers are right, by their probability", class_="narrow"),
            class_="columns uneven"),
        id="calibration",
    )  # fmt: skip


def engines(contents: Contents) -> Markup:
    engine = contents.engine
    what = f"{engine.name} on {engine.device}, in {engine.precision} (engine={engine.asked!r})."
    return tag(
        "section",
        tag("h2", "What answers"),
        tag("p", what),
        tag("p", UNTIMED, class_="note") if engine.times is None else _times(contents),
        id="engines",
    )


def _times(contents: Contents) -> Markup:
    engine = contents.engine
    assert engine.times is not None
    names = ("engine", "precision", "what", "microseconds", "microseconds_p95", "accuracy")
    columns = [list(engine.times[name]) for name in names]
    rows = [
        [str(name), str(precision), str(what), f"{median:.1f}", f"{p95:.1f}", percent(accuracy)]
        for name, precision, what, median, p95, accuracy in zip(*columns, strict=True)
    ]
    calls = f"in calls of {count(engine.n_timed, 'sample')}"
    return table(
        ["Engine", "Precision", "What", "Microseconds", "95th percentile", "Accuracy"],
        rows,
        caption=f"Time of a sample on the machine that wrote this, {calls}",
    )


def guarantees(contents: Contents) -> Markup:
    found, level = contents.certificates, percent(contents.confidence_level, 0)
    if found.risk is None:
        limits = (
            "No limit is certified. A budget or a largest loss of accuracy that was asked for without a confidence "
            "held on the samples that chose the operating point, and need not hold on others. control_risk "
            "certifies one."
        )
    else:
        limits = (
            f"{certified_text(contents)} The confidence is over the drawing of these samples. It holds for the "
            f"classifier's own operating point alone, not for other points of the slider."
        )
    items = [tag("h3", "Limits"), tag("p", limits), tag("h3", "Prediction sets")]
    if not found.n_calibration:
        items.append(tag("p", "There are none, since no sample calibrates them."))
    else:
        items += [tag("p", _sets_text(contents, level)), _what_sets_do_not_say(level)]
    return tag("section", tag("h2", "What is guaranteed"), *items, id="guarantees")


def _sets_text(contents: Contents, level: str) -> str:
    found = contents.certificates
    score = SCORES.get(found.conformity_score.strip("'"), found.conformity_score)
    groups = GROUPS.get(found.condition_on.strip("'"), f"within groups of {found.condition_on}")
    few = (
        " These are too few for the level, so that every set holds all labels."
        if found.too_few
        else ""
    )
    void = " But this does not hold here, as the warning above says." if found.leakage else ""
    return (
        f"A set holds the truth with probability at least {level}, {groups}, for samples like the "
        f"{count(found.n_calibration)} that calibrated it. Labels enter it by {score}.{few}{void}"
    )


def _what_sets_do_not_say(level: str) -> Markup:
    texts = [
        f"They do not say that this one set holds the truth with {level}: hard samples may be covered less often, and "
        "easy ones more. The guarantee is an average.",
        "A set of one label is not a sure answer, and an empty set is no error of the program: no label fits the "
        "sample as well as labels fitted those that calibrated. Give such samples to a human.",
        "They say nothing of samples of another kind: of another time, place, machine or population, or of a class "
        "that the classifier does not know.",
        "They do not say why a label is in them.",
    ]
    return joined(
        [tag("p", "What sets do not say:"), tag("ul", *(tag("li", text) for text in texts))]
    )


def model_card(contents: Contents) -> Markup:
    return tag(
        "section",
        tag("h2", "Model card"),
        tag("h3", "Intended use"),
        tag("p", contents.intended_use or "Not stated by who wrote this report (intended_use=)."),
        tag("h3", "Limits"),
        _limits(contents),
        tag("h3", "Fitted on"),
        _fitted_on(contents),
        tag("h3", "Classes"),
        _classes(contents),
        tag("h3", "Parameters that differ from their defaults"),
        _parameters(contents),
        tag("h3", "Versions"),
        _pairs(contents.facts.versions),
        tag("p", "Of the machine that wrote this report, which need not be the one that fitted the classifier.",
            class_="note"),
        id="model-card",
    )  # fmt: skip


def _limits(contents: Contents) -> Markup:
    n_samples = len(contents.point)
    texts = [
        f"All figures are of {count(n_samples, 'sample')}. Intervals are of chance alone: they do not say what happens "
        "on samples of another kind.",
        "Accuracy is an average. Classes and groups of people may fare worse; this report does not compare groups.",
        "A sample that looks easy leaves early, and no later exit is asked: a wrong answer that is given with "
        "confidence is not corrected.",
    ]
    return tag("ul", *(tag("li", text) for text in texts))


def _fitted_on(contents: Contents) -> Markup:
    facts = contents.facts
    gates = (
        "the same, as networks answer them that have not seen them"
        if facts.out_of_fold
        else count(facts.n_gates)
    )
    pairs = [
        ("Samples that trained", count(facts.n_train)),
        ("Samples that set the gates", gates),
        ("Samples that calibrate prediction sets", count(facts.n_calibration)),
        ("Networks learned from other samples", "no" if facts.complete else "they may have"),
        ("Random seed (random_state)", facts.seed),
        ("This report was written", f"{facts.date:%d %B %Y}"),
    ]
    return _pairs(pairs)


def _classes(contents: Contents) -> Markup:
    facts, codes = contents.facts, contents.point.codes
    n_held_out = int(facts.held_out_counts.sum())
    shares = [(codes == code).mean() for code in range(len(facts.classes))]
    order = list(range(len(facts.classes)))
    if len(order) > MOST_CLASSES:
        order.sort(key=lambda code: -facts.held_out_counts[code])
    rows = [
        [
            as_text(facts.classes[code]),
            percent(facts.held_out_counts[code] / n_held_out),
            percent(float(shares[code])),
        ]
        for code in order[:MOST_CLASSES]
    ]
    head = ["Class", f"Of {count(n_held_out)} samples of the fit", f"Of these {count(len(codes))}"]
    more = len(facts.classes) - MOST_CLASSES
    note = (
        "Of the fit: the samples that set the gates or calibrate, a random part of those that were given; the labels "
        "of others are not kept."
    )
    note += f" {more} rarer classes are not listed." * (more > 0)
    return joined([table(head, rows, caption="Shares of classes"), tag("p", note, class_="note")])


def _parameters(contents: Contents) -> Markup:
    if not contents.facts.parameters:
        return tag("p", "None.")
    return _pairs([(name, tag("code", value)) for name, value in contents.facts.parameters])


def _pairs(pairs: Sequence[tuple[str, str]]) -> Markup:
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value or NOTHING)) for name, value in pairs),
        class_="pairs",
    )
