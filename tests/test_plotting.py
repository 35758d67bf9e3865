import matplotlib
import pytest

from sklearn_jeidnn.plotting import AccuracyCostDisplay

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


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
