"""How images and means of features are drawn for each exit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .bars import label_bars
from .examples import ExampleImages, FeatureMeans
from .figures import SMALL, VERMILLION, Style, colours_of, hide_frame, inches
from .words import counted, percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of an image and the room around it, in inches, and as a share of it.
TILE, ROOM_AROUND, ROOM_FOR_LINE = 0.9, 0.06, 0.19
POINTS = 72  # of an inch
# Height of a row in which three lines fit, and width of a column in which the name of an exit fits, in inches.
LEAST_FOR_LINES, LEAST_FOR_NAMES = 0.6, 1.15
# Purple below, orange above; told apart with any colour vision. Deviations beyond have the same colour.
COLOUR_MAP, MOST_DEVIATIONS = "PuOr_r", 1.5


def size_of(examples: ExampleImages | FeatureMeans, n_samples: np.ndarray) -> tuple[float, float]:
    """Width and height of a figure, in inches."""
    n_taken = int((n_samples > 0).sum())
    if isinstance(examples, ExampleImages):
        n_columns = max((len(images) for images in examples.images), default=1)
        return 3.0 + TILE * n_columns, 0.4 + TILE * (1 + _room_above(examples)) * n_taken
    return 3.4 + 1.35 * (n_taken + 1), 1.7 + 0.36 * len(examples.names)


def _room_above(examples: ExampleImages) -> float:
    """Room above an image for its caption, as a share of its tile."""
    captions = [caption for own in examples.captions for caption in own]
    return ROOM_FOR_LINE * max(caption.count("\n") + bool(caption) for caption in captions)


def _details(display: Any, row: int) -> str:
    """Number of samples and cost of an exit."""
    words = counted(int(display.n_samples[row]))
    if display.exit_costs is None:
        return words
    return f"{words}, {percent(float(display.exit_costs[row]))} of the {display.unit}"


def draw_images(display: Any, ax: Axes) -> None:
    """Draw a row of images for each exit that samples take."""
    taken = np.flatnonzero(display.n_samples).tolist()
    height = 1 + _room_above(display.examples)
    most = max(len(display.examples.images[row]) for row in taken)
    tile = min(inches(ax)[0] / most, inches(ax)[1] / (height * len(taken)))
    size = min(SMALL - 1, POINTS * ROOM_FOR_LINE * tile * 0.8)
    for place, row in enumerate(taken):
        examples = zip(
            display.examples.images[row],
            display.examples.captions[row],
            display.examples.are_wrong[row],
            strict=True,
        )
        for column, (image, caption, is_wrong) in enumerate(examples):
            _draw_image(ax, image, (column, place * height), caption, bool(is_wrong), size)
    names = [display.exit_names[row] for row in taken]
    details = [_details(display, row).replace(", ", "\n") for row in taken]
    if inches(ax)[1] / len(taken) < LEAST_FOR_LINES:
        names = [
            f"{name} ({display.n_samples[row]})" for name, row in zip(names, taken, strict=True)
        ]
        details = [""] * len(taken)
    label_bars(ax, names, details, height)
    ax.set(
        xlim=(-0.5, most - 0.5), ylim=(height * len(taken) - height + 0.5, 0.5 - height), xticks=[]
    )
    ax.set_aspect("equal")
    hide_frame(ax, "top", "right", "bottom", "left")


def _draw_image(
    ax: Axes, image: np.ndarray, place: tuple[int, float], caption: str, is_wrong: bool, size: float
) -> None:
    """Draw an image in a square of one by one around its place, with its label above in letters of a size."""
    column, row = place
    left, right = column - 0.5 + ROOM_AROUND, column + 0.5 - ROOM_AROUND
    top, bottom = row - 0.5 + ROOM_AROUND, row + 0.5 - ROOM_AROUND
    style: Style = {"cmap": "gray", "vmin": 0, "vmax": 1, "aspect": "auto"}
    shown = image if image.shape[-1] == 3 else image[..., 0]
    ax.imshow(shown, extent=(left, right, bottom, top), interpolation="nearest", **style)
    ink = VERMILLION if is_wrong else colours_of(ax).ink
    weight = "bold" if is_wrong else "normal"
    text: Style = {"fontsize": size, "ha": "center", "va": "bottom", "color": ink}
    ax.text(
        column,
        top - 0.02,
        "\n".join(shortened(line, 15) for line in caption.split("\n")),
        fontweight=weight,
        **text,
    )
    if is_wrong:
        corners = np.array(
            [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        )
        ax.plot(*corners.T, color=VERMILLION, linewidth=2.5, clip_on=False)


def draw_feature_means(display: Any, ax: Axes) -> None:
    """Draw means of features as a table: a row for each feature, a column for all samples and for each exit."""
    examples = display.examples
    taken = np.flatnonzero(display.n_samples).tolist()
    deviations = np.c_[np.zeros(len(examples.names)), examples.deviations[:, taken]]
    means = np.c_[examples.overall, examples.means[:, taken]]
    limits: Style = {"vmin": -MOST_DEVIATIONS, "vmax": MOST_DEVIATIONS}
    image = ax.imshow(deviations, cmap=COLOUR_MAP, aspect="auto", **limits)
    for (row, column), mean in np.ndenumerate(means):
        words = percent(mean) if examples.are_shares[row] else f"{mean:.3g}"
        is_dark = abs(deviations[row, column]) > 0.75 * MOST_DEVIATIONS
        style: Style = {"color": "white" if is_dark else "black", "fontsize": SMALL}
        ax.text(column, row, words, ha="center", va="center", **style)
    heads = [("all samples", counted(int(display.n_samples.sum())))]
    heads += [(display.exit_names[row], _details(display, row)) for row in taken]
    labels = [
        f"{name}\n{details}".replace(": ", ":\n").replace(", ", "\n") for name, details in heads
    ]
    turned: Style = (
        {"rotation": 35, "ha": "left"} if inches(ax)[0] / len(labels) < LEAST_FOR_NAMES else {}
    )
    if turned:
        labels = [f"{shortened(name)} ({words.split()[0]})" for name, words in heads]
    ax.set_xticks(range(len(labels)), labels, fontsize=SMALL, **turned)
    ax.xaxis.tick_top()
    ax.set_yticks(
        range(len(examples.names)), [shortened(n) for n in examples.names], fontsize=SMALL
    )
    ax.tick_params(length=0)
    hide_frame(ax, "top", "right", "bottom", "left")
    bar = ax.figure.colorbar(image, ax=ax, ticks=[-1, 0, 1], extend="both", fraction=0.05)
    bar.set_label("mean, in standard deviations\nfrom that of all samples", fontsize=SMALL)
