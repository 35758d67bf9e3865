import matplotlib
import numpy as np
import pytest

from sklearn_jeidnn.plotting import AccuracyCostDisplay, ExitRateDisplay

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_exit_rates_are_drawn_at_their_costs():
    display = ExitRateDisplay(np.array([0.7, 0.1, 0.2]), np.array([0.2, 0.6, 1.1])).plot()
    bars = display.ax_.patches
    assert [bar.get_height() for bar in bars] == [0.7, 0.1, 0.2]
    assert [bar.get_center()[0] for bar in bars] == pytest.approx([0.2, 0.6, 1.1])


def test_accuracy_is_drawn_over_cost_on_the_given_axes():
    import matplotlib.pyplot as plt

    ax = plt.subplots()[1]
    display = AccuracyCostDisplay(
        [0.3, 0.9],
        [0.8, 0.9],
        [1, 0],
        single_costs=[0.2, 1],
        single_accuracies=[0.7, 0.9],
        plain_accuracy=0.9,
    ).plot(ax=ax)
    assert display.ax_ is ax
    single, gates, plain = ax.lines
    assert gates.get_xydata().tolist() == [[0.3, 0.8], [0.9, 0.9]]
    assert plain.get_xydata().tolist() == [[1, 0.9]]
    assert single.get_xydata().tolist() == [[0.2, 0.7], [1, 0.9]]
