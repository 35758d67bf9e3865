"""Columns of categories and missing values become numbers, and what a user gave again."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from sklearn_jeidnn._table_columns import UNSEEN, columns_of, iter_columns

TABLE = pd.DataFrame(
    {
        "age": [30, 41, 22, 60],
        "weight": [70.5, np.nan, 81.0, 64.5],
        "job": ["nurse", None, "smith", "nurse"],
        "colour": pd.Categorical(["red", "blue", "red", None], categories=["red", "green", "blue"]),
        "member": [True, False, True, True],
        "visits": pd.array([1, None, 3, 4], dtype="Int64"),
    }
)


def numbers_of(X, categorical_features="from_dtype"):
    columns = columns_of(X, categorical_features)
    return columns, columns.numbers(X)


def test_numbers_stay_and_categories_count_in_sorted_order():
    columns, table = numbers_of(TABLE)
    assert columns.is_categorical.tolist() == [False, False, True, True, False, False]
    assert columns.categories[2:4] == (("nurse", "smith"), ("blue", "red"))
    nan = np.nan
    expected = [
        [30, 70.5, 0, 1, 1, 1],
        [41, nan, nan, 0, 0, nan],
        [22, 81, 1, 1, 1, 3],
        [60, 64.5, 0, nan, 1, 4],
    ]
    np.testing.assert_array_equal(table, expected)


def test_a_frame_comes_back_as_it_was():
    columns, table = numbers_of(TABLE)
    assert_frame_equal(columns.as_given(np.float32(table)), TABLE)
    part = columns.as_given(np.float32(table[[2, 0]]))
    assert_frame_equal(part, TABLE.iloc[[2, 0]].reset_index(drop=True))


def test_an_array_of_words_comes_back_as_it_was():
    X = np.array([[1.5, "u"], [2, "v"], [None, "u"]], dtype=object)
    columns, table = numbers_of(X)
    back = columns.as_given(table)
    assert back[:2].tolist() == X[:2].tolist() and back[2, 1] == "u" and np.isnan(back[2, 0])
    lists = [[1.5, "u"], [2, "v"]]
    np.testing.assert_array_equal(numbers_of(lists)[1], [[1.5, 0], [2, 1]])


def test_a_word_that_fit_did_not_see_is_none_of_the_known_ones():
    columns, _ = numbers_of(TABLE)
    new = TABLE.assign(job="baker", colour=["green", "red", "pink", "blue"])
    with pytest.warns(
        UserWarning, match=r"did not see in 4 samples, in columns \['job', 'colour'\]"
    ):
        table = columns.numbers(new)
    assert (table[:, 2] == UNSEEN).all()
    assert table[:, 3].tolist() == [UNSEEN, 1, UNSEEN, 0]
    # A member's own way with words that it does not know applies.
    back = columns.as_given(table)
    assert back["job"].tolist() == ["unseen"] * 4
    assert back["colour"].isna().tolist() == [True, False, True, False]


@pytest.mark.parametrize("chosen", [["age"], [0], [-6], [True] + 5 * [False]])
def test_columns_of_numbers_are_categories_where_that_is_said(chosen):
    columns, table = numbers_of(TABLE[["age", "weight"]].assign(a=1, b=2, c=3, d=4), chosen)
    assert columns.is_categorical.tolist() == [True] + 5 * [False]
    assert columns.categories[0] == (22, 30, 41, 60) and table[:, 0].tolist() == [1, 2, 0, 3]
    assert columns.as_given(table)["age"].tolist() == TABLE["age"].tolist()


def test_an_array_of_numbers_with_categories_comes_back_as_floats():
    X = np.array([[3.0, 0.5], [7, 1], [3, 2]])
    columns, table = numbers_of(X, [0])
    assert table[:, 0].tolist() == [0, 1, 0]
    back = columns.as_given(table)
    assert back.dtype == np.float64 and np.array_equal(back, X)


@pytest.mark.parametrize(
    "chosen, match",
    [
        (["hat"], "X has no column 'hat', but .*'age'"),
        ([6], "X has no column 6"),
        ([True, False], "X has 6 columns"),
        ("dtype", "the word is not known"),
        ([0.5], "no list of columns"),
        ([[0]], "no list of columns"),
    ],
)
def test_columns_that_are_not_there_are_refused(chosen, match):
    with pytest.raises(ValueError, match=f"categorical_features=.*{match}"):
        columns_of(TABLE, chosen)


def test_words_that_are_numbers_are_numbers_and_words_among_numbers_are_told():
    X = pd.DataFrame({"age": ["30", "41", None, "22"]})
    assert not columns_of(X, "from_dtype").is_categorical.any()
    with pytest.warns(UserWarning, match="'age', which holds mostly numbers, .* such as '\\?'"):
        assert columns_of(X.fillna("?"), "from_dtype").is_categorical.all()


def test_without_categories_words_are_refused_with_their_column():
    with pytest.raises(ValueError, match="'nurse' in column 'job', which is one of numbers"):
        numbers_of(TABLE, None)


@pytest.mark.parametrize("cell", [[1, 2], {"a": 1}, pd.Timestamp("2020-01-01").date(), 1j])
def test_cells_that_are_neither_numbers_nor_words_are_refused(cell):
    for chosen in ("from_dtype", ["job"], None):
        with pytest.raises(TypeError, match="in column 'job': the argument must be a string or a"):
            numbers_of(pd.DataFrame({"job": [cell, 1, 2]}), chosen)


def test_medians_stand_for_missing_numbers_only_where_fit_had_none():
    columns, table = numbers_of(TABLE)
    columns = columns.with_statistics(table)
    assert columns.fill[0] == 35.5 and np.isnan(columns.fill[1:4]).all()
    table = np.full((1, 6), np.nan)
    with pytest.warns(UserWarning, match=r"missing values in columns \['age', 'member'\]"):
        filled = columns.filled(table)
    np.testing.assert_array_equal(filled, [[35.5, np.nan, np.nan, np.nan, 1, np.nan]])


def test_missing_values_have_one_bit_pattern():
    # Samples are told apart by their bits.
    strange = np.array([[0x7FF8000000000001, 0x7FF8000000000002]], np.uint64).view(np.float64)
    columns = columns_of(strange, None).with_statistics(strange)
    assert len(set(columns.filled(strange).view(np.uint64).ravel().tolist())) == 1


def test_the_same_name_twice_is_read_by_position():
    X = pd.DataFrame([[1, "u"], [2, "v"]])
    X.columns = ["a", "a"]
    values = [column.tolist() for _, column, _ in iter_columns(X)]
    assert values == [[1, 2], ["u", "v"]]


def test_a_frame_of_polars_is_read_and_comes_back():
    polars = pytest.importorskip("polars")
    X = polars.DataFrame(
        {
            "age": [30, None, 22],
            "weight": [70.5, 81.0, None],
            "job": ["nurse", None, "smith"],
            "colour": polars.Series(["red", "blue", None], dtype=polars.Categorical),
            "member": [True, None, False],
        }
    )
    columns, table = numbers_of(X)
    nan = np.nan
    expected = [[30, 70.5, 0, 1, 1], [nan, 81, nan, 0, nan], [22, nan, 1, nan, 0]]
    np.testing.assert_array_equal(table, expected)
    back = columns.as_given(np.float32(table))
    assert back.schema == X.schema and back.equals(X)


def there_and_back(X, new=None, categorical_features="from_dtype"):
    """What a member is given in the place of new samples, where fit was given X."""
    columns = columns_of(X, categorical_features)
    return columns.as_given(np.float32(columns.numbers(X if new is None else new)))


@pytest.mark.parametrize("dtype", ["int8", "bool", "uint8", "Int8", "boolean", "Sparse[int8]"])
def test_numbers_that_do_not_fit_the_dtype_of_fit_are_not_cut(dtype):
    X = pd.DataFrame({"a": pd.Series([1, 0, 1]).astype(dtype)})
    assert str(there_and_back(X)["a"].dtype).startswith(dtype[:5])
    for cells in ([300, 1, 0], [0.5, 1, 0], [-7, 1, 0]):
        if cells[0] != -7 or "u" in dtype or "b" in dtype:
            assert there_and_back(X, pd.DataFrame({"a": cells}))["a"].tolist() == cells


def test_numbers_that_do_not_fit_a_dtype_of_polars_are_not_cut():
    polars = pytest.importorskip("polars")
    X = polars.DataFrame({"a": polars.Series([1, 2], dtype=polars.Int8), "b": [True, False]})
    new = polars.DataFrame({"a": [2.5, 300.0], "b": [5, 0]})
    assert there_and_back(X).equals(X)
    assert there_and_back(X, new).to_dict(as_series=False) == {"a": [2.5, 300], "b": [5, 0]}


def test_numbers_that_are_written_come_back_written():
    X = pd.DataFrame({"age": ["30", "41.5", None, "22"]}, dtype=object)
    assert there_and_back(X)["age"].tolist() == ["30", "41.5", None, "22"]


def test_digits_after_a_zero_are_codes():
    X = pd.DataFrame({"postcode": ["01067", "10115", "99999"]})
    columns = columns_of(X, "from_dtype")
    assert columns.categories == (("01067", "10115", "99999"),)
    assert_frame_equal(there_and_back(X), X)


def test_a_word_that_fit_did_not_see_is_never_one_that_it_saw():
    X = pd.DataFrame({"a": ["unseen", "b"]})
    with pytest.warns(UserWarning, match="categories that fit did not see"):
        back = there_and_back(X, pd.DataFrame({"a": ["c", "b"]}))
    assert back["a"].tolist() == ["unseen_", "b"]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_what_stands_for_a_missing_word_comes_back(missing):
    X = pd.DataFrame({"a": pd.Series(["u", missing, "v"], dtype=object)})
    assert there_and_back(X)["a"].iloc[1] is missing
    assert there_and_back(X.to_numpy())[1, 0] is missing


def test_columns_without_any_word_take_words_later():
    X = pd.DataFrame({"a": pd.Series([None, None], dtype=object), "b": [1.0, 2.0]})
    with pytest.warns(UserWarning, match=r"categories that fit did not see in 1 samples.*\['a'\]"):
        table = columns_of(X, "from_dtype").numbers(X.assign(a=["u", None]))
    np.testing.assert_array_equal(table, [[-1, 1], [np.nan, 2]])


def test_numbers_of_other_types_are_numbers_and_bytes_are_words():
    cells = [Decimal("1.5"), Fraction(1, 2), np.float32(0.25), np.int8(3), True]
    columns, table = numbers_of(pd.DataFrame({"a": pd.Series(cells, dtype=object)}))
    assert table.ravel().tolist() == [1.5, 0.5, 0.25, 3, 1] and columns.categories == (None,)
    X = np.array([[b"v", 1], ["u", 2], [3, 3]], dtype=object)
    assert columns_of(X, "from_dtype").categories == ((3, b"v", "u"), None)
    assert there_and_back(X).tolist() == X.tolist()
    assert there_and_back(X[:1].astype("S")).tolist() == [[b"v", 1]]
    with np.errstate(invalid="ignore"):
        huge = numbers_of(pd.DataFrame({"a": pd.Series([10**400, -(10**400)], dtype=object)}))[1]
    assert huge.ravel().tolist() == [np.inf, -np.inf]


def test_columns_of_polars_that_are_no_numbers_are_refused():
    polars = pytest.importorskip("polars")
    numbers = polars.Series([1, 2])
    cells = [numbers.cast(polars.Datetime("ns")), numbers.cast(polars.Duration("ns"))]
    cells += [polars.Series([{"x": 1}, {"x": 2}]), polars.Series([[1, 2], [3, 4]])]
    cells += [polars.Series([[1, 2], [3, 4]], dtype=polars.Array(polars.Int64, 2))]
    for column in cells:
        with pytest.raises(TypeError, match="in column 'a': the argument must be a string"):
            numbers_of(polars.DataFrame({"a": column}))


def test_columns_are_chosen_by_position_where_names_are_not_enough():
    X = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    assert columns_of(X, [True, False]).is_categorical.tolist() == [True, False]
    assert columns_of(X, [-1]).is_categorical.tolist() == [False, True]
    assert columns_of(X, ["a"]).is_categorical.all()
    assert not columns_of(X, []).is_categorical.any()
    X = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    assert columns_of(X, [("a", "c")]).is_categorical.tolist() == [False, True]
    assert columns_of(X, [("a", "c"), 0]).is_categorical.all()
    with pytest.raises(ValueError, match=r"for one column give \['job'\]"):
        columns_of(TABLE, "job")


def test_large_identifiers_stay_apart_beside_missing_ones():
    polars = pytest.importorskip("polars")
    cells = [2**60, 2**60 + 1, None]
    frames = [pd.DataFrame({"a": pd.array(cells, dtype="Int64")}), polars.DataFrame({"a": cells})]
    for X in frames:
        columns, table = numbers_of(X, ["a"])
        assert columns.categories == ((2**60, 2**60 + 1),)
        np.testing.assert_array_equal(table, [[0], [1], [np.nan]])
        assert columns_of(X, "from_dtype").categories == (None,)
