"""Axes, colours and legends that all displays share; matplotlib is imported when something is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Properties of something drawn.
Style: TypeAlias = dict[str, Any]
# Okabe and Ito, "Color Universal Design", 2008: told apart with any colour vision.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
# Other curves; told apart by line and marker, too.
OTHER_STYLES: tuple[Style, ...] = (
    {"color": ORANGE, "linestyle": "--", "marker": "^"},
    {"color": GREEN, "linestyle": "-.", "marker": "s"},
    {"color": PURPLE, "linestyle": ":", "marker": "X"},
    {"color": SKY, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "P"},
    {"color": VERMILLION, "linestyle": (0, (1, 1)), "marker": "v"},
)
SMALL = 9


class Colours(NamedTuple):
    """What suits the background of some axes."""

    main: str
    ink: str
    muted: str
    paper: Any


def pyplot(display: str) -> Any:
    """``matplotlib.pyplot``.

    Raises
    ------
    ImportError
        That says how to get it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{display} draws with matplotlib, which is not installed: pip install 'sklearn_jeidnn[plot]'."
        ) from error
    return plt


def axes_for(
    display: object, ax: Any, figsize: tuple[float, float], layout: str = "constrained"
) -> Axes:
    """The axes given, or those of a new figure."""
    plt = pyplot(type(display).__name__)
    if ax is None:
        made: Axes = plt.subplots(figsize=figsize, layout=layout)[1]
        return made
    return checked_axes(ax, plt)


def checked_axes(ax: Any, plt: Any) -> Axes:
    """The axes given.

    Raises
    ------
    TypeError
        If they are no axes.
    """
    if not isinstance(ax, plt.Axes):
        raise TypeError(
            f"ax={type(ax).__name__} is not a matplotlib Axes; give one, as plt.subplots()[1] is, or None for a new "
            f"figure."
        )
    checked: Axes = ax
    return checked


def colours_of(ax: Axes) -> Colours:
    """Colours that can be seen on the background of the axes."""
    from matplotlib.colors import to_rgb

    paper = ax.get_facecolor()
    is_dark = sum(to_rgb(paper)) < 1.5
    return (
        Colours(SKY, "white", "0.65", paper) if is_dark else Colours(BLUE, "black", "0.45", paper)
    )


def with_kwargs(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Properties of a line, those of the user in the place of the defaults."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return {**defaults, **normalize_kwargs(dict(given or {}), Line2D)}


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of axes, about; a layout that makes room for labels may still change them."""
    return float(ax.bbox.width / ax.figure.dpi), float(ax.bbox.height / ax.figure.dpi)


def is_narrow(ax: Axes) -> bool:
    """Whether there is little room for words."""
    return inches(ax)[0] < 4.5


def add_legend(ax: Axes, *, n_columns: int = 2, handles: Any = None) -> None:
    """A legend below the axes, if the figure's layout makes room for it, else where there is most room inside.

    ``handles`` are in the order of the legend; None takes all artists that have a label.
    """
    size = SMALL - 2 if is_narrow(ax) else SMALL
    if ax.figure.get_layout_engine() is None:
        ax.legend(fontsize=size, framealpha=0.85, loc="best", handles=handles)
        return
    below = -0.55 / max(inches(ax)[1], 1)
    place: Style = {"loc": "upper center", "bbox_to_anchor": (0.5, below)}
    n_columns = 1 if is_narrow(ax) else n_columns
    ax.legend(fontsize=size, frameon=False, handles=handles, ncols=n_columns, **place)


def hide_frame(ax: Axes, *sides: str) -> None:
    """Take away lines around the axes that say nothing."""
    for side in sides or ("top", "right"):
        ax.spines[side].set_visible(False)
