import numpy as np
import pytest

from sklearn_jeidnn._fit.mixing import bounded_minimum


@pytest.mark.parametrize("least, expected", [(-6.0, -2.0), (-1.0, -1.0)])
def test_a_minimum_is_looked_for_between_its_bounds(least, expected):
    found = bounded_minimum(lambda v: (np.square(v + 2).sum(), 2 * (v + 2)), 2, least)
    np.testing.assert_allclose(found, [expected, expected], atol=1e-5)


@pytest.mark.parametrize("slope, expected", [(-1.0, 6.0), (1.0, -6.0)])
def test_logarithms_of_weights_stay_within_six_of_zero(slope, expected):
    found = bounded_minimum(lambda v: (slope * v.sum(), np.full(2, slope)), 2)
    np.testing.assert_allclose(found, [expected, expected])
