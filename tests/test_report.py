"""A report is one page that says what the classifier does to the samples, and nothing in it comes from elsewhere."""

import base64
import html.parser
import io
import json
import pathlib
import re

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch.utils.data import TensorDataset

import sklearn_jeidnn
from sklearn_jeidnn import EarlyExitClassifier, _timing
from sklearn_jeidnn._report.exits import MOST_EXAMPLES_OF_ALL
from sklearn_jeidnn._report.markup import data
from sklearn_jeidnn._report.pictures import LONGEST_SIDE, Pictures
from sklearn_jeidnn._report.shown import Table, as_text
from sklearn_jeidnn.reporting import report

from . import browser
from .conftest import TinyConv, quick_classifier
from .test_divergence import Normed

PACKAGE = pathlib.Path(sklearn_jeidnn.__file__).parent
EVIL = "<script>alert('x')</script>"


class Elements(html.parser.HTMLParser):
    """Elements of a page with their attributes, and the text of each kind of element."""

    def __init__(self, page):
        super().__init__()
        self.found, self.texts, self._open = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        for tag in set(self._open):
            self.texts[tag] = self.texts.get(tag, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def reported(fitted, fresh_digits):
    """At the point at which samples leave at the most different exits: not the cheapest."""
    table = fitted.frontier(*fresh_digits)
    rates = np.stack([table[name] for name in table if name.startswith("exit")])
    return fitted.at(cost_weight=table["cost_weight"][(rates**2).sum(0).argmin()])


@pytest.fixture(scope="module")
def written(reported, fresh_digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    reported.report(*fresh_digits, path, image_shape=(8, 8))
    return path


@pytest.fixture(scope="module")
def text(written):
    return written.read_text()


def points_of(text):
    return json.loads(re.search(r'id="points">(.*?)</script>', text)[1])


def figures(clf, X, y):
    """Mean cost, accuracy, coverage, mean set size."""
    sets = clf.predict_set(X)
    return [
        clf.mean_cost(X),
        clf.score(X, y),
        sets[np.arange(len(y)), y].mean(),
        sets.sum(1).mean(),
    ]


def test_figures_of_all_points_are_those_of_the_classifier_there(reported, fresh_digits, text):
    X, y = fresh_digits
    points = points_of(text)
    (own,) = (point for point in points if point["own"])
    np.testing.assert_allclose(own["values"], figures(reported, X, y), atol=1e-6)
    assert own["texts"]["code"] == "this classifier as it is"
    others = [point for point in points if not point["own"]]
    assert len(others) > 5
    for point in others[::4]:
        there = eval(point["texts"]["code"], {"clf": reported})
        # Gates of all points are found together, those of one by itself: rounding may move a sample.
        np.testing.assert_allclose(point["values"], figures(there, X, y), atol=3 / len(y))
        rates = np.bincount(there.predict_exit(X), minlength=len(there.exit_costs_)) / len(y)
        np.testing.assert_allclose(
            [rate["width"] for rate in point["rates"]], 100 * rates, atol=0.3
        )
    costs = [point["values"][0] for point in points]
    assert costs == sorted(costs)


def test_a_page_loads_nothing_and_runs_its_own_script_alone(text):
    page = Elements(text)
    assert len(text) < 3_000_000
    addresses = [a.get(name, "#") for _, a in page.found for name in ("src", "href")]
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert not page.all("link") and "url(" not in text
    kinds = [attributes.get("type") for attributes in page.all("script")]
    assert kinds == ["application/json", None]
    (policy,) = (a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert not [name for _, a in page.found for name in a if name.startswith("on")]


def test_without_scripts_a_table_has_all_points(text):
    table = re.search(r"<noscript>(.*?)</noscript>", text, flags=re.DOTALL)[1]
    assert table.count("<tr") == 1 + len(points_of(text))


def test_values_for_the_script_cannot_end_it():
    values = {"</script><script>": ["&amp;", "<!--"]}
    text = data(values, "id")
    assert text.lower().count("script>") == 1 and "<!--" not in text
    assert json.loads(text.partition(">")[2].removesuffix("</script>")) == values


# --- in a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.missing():
        pytest.skip(browser.missing())
    with browser.started(tmp_path_factory.mktemp("profile")) as found:
        yield found


SHOWN = "return [...document.querySelectorAll('output')].map(o => o.textContent)"


def test_the_slider_moves_by_keyboard_and_shows_the_classifier_there(
    chromium, written, reported, fresh_digits
):
    X, y = fresh_digits
    chromium.open(written.as_uri())
    at_first = chromium.run(SHOWN)
    cost, *shares = figures(reported, X, y)
    assert at_first == [
        f"{cost:.2f}",
        f"{100 * shares[0]:.1f}\u00a0%",
        f"{100 * shares[1]:.1f}\u00a0%",
        f"{shares[2]:.2f}",
    ]
    chromium.press("#slider", browser.HOME + 2 * browser.RIGHT)
    code = chromium.run("return document.querySelector('code[data-field=code]').textContent")
    shown = [float(text.rstrip("\u00a0%")) for text in chromium.run(SHOWN)]
    there = figures(eval(code, {"clf": reported}), X, y)
    expected = np.array(there) * [1, 100, 100, 1]
    np.testing.assert_allclose(shown, expected, atol=0.3)
    assert chromium.run(SHOWN) != at_first
    assert "accuracy" in chromium.run("return slider.getAttribute('aria-valuetext')")
    chromium.click("#back")
    assert chromium.run(SHOWN) == at_first
    own = [point["own"] for point in points_of(written.read_text())].index(True)
    assert chromium.run("return Number(slider.value)") == own > 0
    assert chromium.problems() == []
    asked = chromium.requests_of(written.as_uri())
    assert {url for url in asked if not url.startswith("data:")} == {written.as_uri()}


def overflow(chromium):
    return chromium.run(
        "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
    )


def test_no_part_of_the_page_is_wider_than_a_phone(chromium, written):
    chromium.open(written.as_uri())
    for width in (1280, 390, 320):
        chromium.resize(width)
        assert overflow(chromium) <= 0, width
        ends = "[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right)"
        outside = chromium.run(
            f"return [...document.querySelectorAll('section > *, .columns > *, .panel *')]"
            f".filter(e => e.getBoundingClientRect().right > {width}).map(e => e.outerHTML)"
        )
        assert chromium.run(f"return {ends}.length") > 100 and outside == []
    chromium.resize(1280)


def test_what_looks_like_code_is_text_in_the_browser(chromium, tmp_path):
    clf, X, y = evil_samples()
    report(clf, X, y, tmp_path / "evil.html", title=EVIL, intended_use=EVIL)
    chromium.open((tmp_path / "evil.html").as_uri())
    assert chromium.run("return document.querySelector('h1').textContent") == EVIL
    assert chromium.run("return document.scripts.length") == 2
    assert chromium.problems() == []


# --- what is shown of samples


def evil_samples():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pandas.DataFrame(
        {EVIL: rng.normal(size=300), '"><img src=x onerror=alert(1)>': [EVIL, "</td>"] * 150}
    )
    y = np.where(X[EVIL] > 0, EVIL, "it's & <b>")
    clf = EarlyExitClassifier(max_epochs=1, cv=None, companion=None, random_state=0)
    return clf.fit(X[:200], y[:200]), X[200:], y[200:]


def test_names_and_values_that_look_like_code_are_text(tmp_path):
    clf, X, y = evil_samples()
    for examples in (True, False):
        clf.report(X, y, tmp_path / "r.html", title=EVIL, intended_use="</p>", examples=examples)
        page = Elements((tmp_path / "r.html").read_text())
        assert len(page.all("script")) == 2 and not page.all("b") and not page.all("img")
        assert EVIL in page.texts["h1"] and EVIL in page.texts["table"]


def test_pictures_are_the_samples(reported, fresh_digits, text):
    PIL = pytest.importorskip("PIL.Image")
    X, y = fresh_digits
    images = Elements(text).all("img")
    assert len(images) > 8
    for image in images:
        number = int(re.search(r"sample (\d+)", image["alt"])[1])
        file = io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))
        with PIL.open(file) as picture:
            pixels = np.asarray(picture)
        np.testing.assert_allclose(pixels, X[number].reshape(8, 8) * 255 / X.max(), atol=0.51)
        label = reported.predict(X[[number]])[0]
        assert image["alt"].endswith(f"truth {y[number]}, answer {label}")


def test_examples_go_from_the_surest_answer_to_the_least_sure(text):
    shown = re.findall(r'<ul class="pictures">(.*?)</ul>', text, flags=re.DOTALL)
    for pictures in shown:
        numbers = [float(n) for n in re.findall(r'class="small">([\d.]+)\u00a0%', pictures)]
        assert numbers == sorted(numbers, reverse=True) and len(numbers) > 1
    assert len(shown) > 1


def test_large_pictures_are_made_small_and_keep_their_colours():
    PIL = pytest.importorskip("PIL.Image")
    images = np.zeros((2, 3, 200, 300), dtype=np.uint8)
    images[0, 1] = 255
    uri = Pictures.of(images, (3, 200, 300)).data_uri(0)
    with PIL.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        assert max(picture.size) <= LONGEST_SIDE and picture.size[0] > picture.size[1]
        assert np.asarray(picture)[5, 5].tolist() == [0, 255, 0]
    # Noise, which nothing compresses, in as many pictures as a page has at most.
    noise = np.random.default_rng(0).integers(256, size=(1, 216, 216, 3), dtype=np.uint8)
    size = len(Pictures.of(noise, noise.shape[1:]).data_uri(0))
    assert MOST_EXAMPLES_OF_ALL * size < 1_500_000


def test_the_columns_that_tell_most_of_an_exit_come_first():
    here = np.arange(100) < 40
    rng = np.random.default_rng(0)
    columns = {
        "noise": rng.normal(size=100),
        "words": np.where(here, "often", "seldom"),
        "shifted": rng.normal(size=100) + here,
        "gaps": np.where(here, np.nan, 1.0),
    }
    words, shifted = Table(columns=columns).telling(here, 2)
    assert (words.name, words.here, words.elsewhere) == ("words", "100% often", "0% often")
    assert shifted.name == "shifted"
    assert shifted.here == f"mean {as_text(float(columns['shifted'][here].mean()))}"


def test_without_examples_no_sample_is_in_the_page(tmp_path):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    secret = [f"secret{i % 2}" for i in range(300)]
    X = pandas.DataFrame({"salary": rng.integers(10**5, 10**6, 300), "name": secret})
    y = (X["salary"] > 5e5).astype(int).to_numpy()
    clf = EarlyExitClassifier(max_epochs=1, cv=None, companion=None, random_state=0)
    clf.fit(X[:200], y[:200])
    pages = {}
    for examples in (True, False):
        clf.report(X[200:], y[200:], tmp_path / "r.html", examples=examples)
        pages[examples] = (tmp_path / "r.html").read_text()
    for value in ("secret", "salary", *map(str, X["salary"][200:])):
        assert value not in pages[False], value
    assert "secret" in pages[True] and "salary" in pages[True]


def test_sentences_in_front_of_a_pipeline_are_shown_as_words(tmp_path):
    texts = np.array(
        [f"sentence {i} is {'good' if i % 2 else 'bad'} " + "x " * 60 for i in range(300)]
    )
    y = np.arange(300) % 2
    dense = FunctionTransformer(lambda counts: counts.toarray().astype(float))
    last = EarlyExitClassifier(max_epochs=1, cv=None, companion=None, random_state=0)
    pipeline = make_pipeline(CountVectorizer(max_features=20), dense, last)
    pipeline.fit(texts[:200], y[:200])
    report(pipeline, texts[200:], y[200:], tmp_path / "r.html")
    words = Elements((tmp_path / "r.html").read_text()).texts["td"]
    assert re.search(r"sentence 2\d\d is (good|bad) x x", words) and "…" in words


def test_pipelines_and_searches_are_reported_in_the_units_of_their_samples(
    fitted, digits, fresh_digits, tmp_path
):
    X, y = digits
    tiny = quick_classifier(max_epochs=1, module__width=16, module__n_blocks=2)
    piped = make_pipeline(StandardScaler(), tiny)
    path = tmp_path / "r.html"
    for estimator in (piped, GridSearchCV(piped, {}, cv=2)):
        report(estimator.fit(X, y), *fresh_digits, path)
        page = path.read_text()
        (own,) = (point for point in points_of(page) if point["own"])
        assert own["values"][1] == pytest.approx(estimator.score(*fresh_digits))
        code = next(p["texts"]["code"] for p in points_of(page) if not p["own"])
        assert code.startswith("sklearn_jeidnn.pipeline.at(estimator, cost_weight=")
        # Grey values from 0 to 16, not scaled ones.
        assert re.search(r"mean \d+\.\d+</td>", page) and "mean -" not in page


def test_a_dataset_is_reported_as_its_arrays(reported, fresh_digits, text, tmp_path):
    X, y = map(torch.as_tensor, fresh_digits)
    reported.report(TensorDataset(X, y), None, tmp_path / "r.html", image_shape=(8, 8))
    assert (tmp_path / "r.html").read_text() == text


# --- what is said


def page_of(clf, X, y, path, **options):
    clf.report(X, y, path, **options)
    return Elements(path.read_text()).texts["main"].replace("\u00a0", " ")


def test_samples_that_the_classifier_has_seen_are_told(fitted, digits, fresh_digits, tmp_path):
    path = tmp_path / "r.html"
    with pytest.warns(UserWarning, match="has seen these samples before") as caught:
        page = page_of(fitted, *digits, path)
    assert caught[0].filename == __file__
    n_known = np.bincount(fitted._predictor.history.parts)
    assert f"{n_known[0] + n_known[1]} of 300 trained its networks or set its gates" in page
    assert f"{n_known[2]} of 300 calibrated" in page and "too good to hold" in page
    assert "has seen" not in page_of(fitted, *fresh_digits, path)


@pytest.mark.filterwarnings("ignore:The classifier has seen these samples")
def test_samples_of_conformalize_are_told(fitted, fresh_digits, tmp_path):
    X, y = fresh_digits
    other = fitted.at(cost_weight=fitted.cost_weight_).conformalize(X[:400], y[:400])
    page = page_of(other, X[300:500], y[300:500], tmp_path / "r.html")
    assert "100 of 200 calibrated its prediction sets" in page
    assert "has seen" not in page_of(other, X[400:], y[400:], tmp_path / "r.html")


def test_warnings_that_samples_give_are_in_the_page(fitted, fresh_digits, tmp_path):
    X, y = fresh_digits
    X = np.where(np.arange(len(y))[:, None] < 20, np.nan, X)
    with pytest.warns(UserWarning, match="missing values in columns") as caught:
        page = page_of(fitted, X, y, tmp_path / "r.html")
    assert str(caught[0].message) in page and caught[0].filename == __file__
    assert as_text(np.float32("nan")) == "missing"


@pytest.mark.filterwarnings("ignore:module", "ignore:.* samples", "ignore:X is not like")
def test_samples_without_an_answer_count_as_predict_and_sets_count_them(
    digits, fresh_digits, tmp_path
):
    X, y = fresh_digits[0][:100].copy(), fresh_digits[1][:100]
    X[::10] = 0
    # The companion answers blank samples; the last exit, where all samples go, does not.
    clf = quick_classifier(module=[TinyConv, Normed], max_epochs=2).fit(*digits)
    clf._adopt(clf._predictor.moved_to(clf._predictor.frontier.always_last_exit()))
    y[::10] = clf.predict(X[::10])
    assert np.isnan(clf.exit_answers(X, y).logits[:, -1]).any()
    clf.report(X, y, tmp_path / "r.html")
    (own,) = (p for p in points_of((tmp_path / "r.html").read_text()) if p["own"])
    np.testing.assert_allclose(own["values"], figures(clf, X, y), atol=1e-6)


def test_what_was_certified_is_told_with_its_samples(fitted, fresh_digits, tmp_path):
    X, y = fresh_digits
    shown = fitted.control_risk(X[:800], y[:800], max_accuracy_drop=0.2, risk_confidence=0.9)
    assert shown.risk_.certified
    page = page_of(shown, X[800:], y[800:], tmp_path / "r.html")
    assert "Certified with 90 % confidence, on 800 samples" in page
    assert "accuracy is at most 20 points below the full model's" in page
    with pytest.warns(UserWarning, match="do not show any operating point"):
        not_shown = fitted.control_risk(X[:20], y[:20], max_accuracy_drop=0.01)
    page = page_of(not_shown, X[800:], y[800:], tmp_path / "r.html")
    assert "Not certified: 20 samples did not show, with 95 % confidence" in page
    assert "No limit is certified" in page_of(fitted, X, y, tmp_path / "r.html")


def test_without_calibration_or_a_frontier_the_rest_is_told(digits, fresh_digits, tmp_path):
    path = tmp_path / "r.html"
    clf = quick_classifier(max_epochs=1, gate_training="bilevel").fit(*digits)
    assert "one operating point on these samples" in page_of(clf, *fresh_digits, path)
    assert len(points_of(path.read_text())) == 1
    no_sets = quick_classifier(max_epochs=1, cv=2, validation_fraction=0).fit(*digits)
    page = page_of(no_sets, *fresh_digits, path)
    assert "no sample calibrates" in page and "by chance alone" not in page
    assert points_of(path.read_text())[0]["values"][2:] == [None, None]


def test_groups_of_conformalize_are_asked_for_and_taken(fitted, fresh_digits, tmp_path):
    X, y = fresh_digits
    other = fitted.at(cost_weight=0.1).conformalize(X[:600], y[:600], groups=y[:600] % 2)
    with pytest.raises(ValueError, match="none are given here"):
        other.report(X[600:], y[600:], tmp_path / "r.html")
    other.report(X[600:], y[600:], tmp_path / "r.html", groups=y[600:] % 2)
    (own,) = (p for p in points_of((tmp_path / "r.html").read_text()) if p["own"])
    sets = other.predict_set(X[600:], groups=y[600:] % 2)
    assert own["values"][3] == pytest.approx(sets.sum(1).mean(), abs=1e-6)


def test_engines_are_timed_if_that_is_asked_for(fitted, fresh_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(_timing, "usual_engines", lambda: ["torch"])
    X, y = (part[:64] for part in fresh_digits)
    page = page_of(fitted, X, y, tmp_path / "r.html")
    assert "torch on cpu, in float32" in page and "Nothing was timed" in page
    timed = page_of(fitted, X, y, tmp_path / "r.html", timing=True)
    assert "in calls of 64 samples" in timed and "whole network" in timed


def test_the_engine_that_answers_is_told(fitted, fresh_digits, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    there = fitted.at(engine="onnxruntime")
    assert "ONNX Runtime on cpu" in page_of(there, *fresh_digits, tmp_path / "r.html")


class Secret(torch.nn.Sequential):
    def __init__(self, token="none"):
        super().__init__(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))


def test_the_model_card_tells_parameters_but_no_folders_or_addresses(
    digits, fresh_digits, tmp_path
):
    params = {"max_epochs": 1, "memory": str(tmp_path / "cache"), "module": Secret()}
    clf = quick_classifier(**params, exits=["0"]).fit(*digits)
    page = page_of(clf, *fresh_digits, tmp_path / "r.html", intended_use="To read digits.")
    assert "Secret (an instance)" in page and "max_epochs" in page and "To read digits." in page
    assert str(tmp_path) not in page and "0x" not in page
    n_train = int((clf._predictor.history.parts == 0).sum())
    assert f"Samples that trained{n_train}" in page


# --- mistakes


def test_mistakes_are_told_before_anything_is_written(fitted, fresh_digits, tmp_path):
    X, y = fresh_digits
    path = tmp_path / "r.html"
    path.write_text("before")
    mistakes = [
        ({"path": tmp_path}, IsADirectoryError, "is a folder; give the name of a file"),
        ({"path": tmp_path / "none" / "r.html"}, FileNotFoundError, "make it first"),
        ({"y": np.full(len(y), 11)}, ValueError, r"y has labels \[11\].* leave these samples out"),
        ({"y": np.where(y == 3, np.nan, y)}, ValueError, "y has .* missing labels"),
        ({"y": y[:-1]}, ValueError, "y has shape"),
        ({"X": np.where(X == 3, np.inf, X)}, ValueError, "infinity"),
        ({"image_shape": (9, 8)}, ValueError, r"image_shape=\(9, 8\) takes samples of 72 numbers"),
        ({"title": 3}, TypeError, "title=3"),
    ]
    for wrong, error, message in mistakes:
        with pytest.raises(error, match=message):
            fitted.report(**{"X": X, "y": y, "path": path, **wrong})
    with pytest.raises(NotFittedError, match="fit"):
        EarlyExitClassifier().report(X, y, path)
    with pytest.raises(NotFittedError, match="fit"):
        report(make_pipeline(StandardScaler(), EarlyExitClassifier()), X, y, path)
    with pytest.raises(TypeError, match="estimator is a ndarray"):
        report(X, y, fitted, path)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_files_that_are_no_code_are_packed():
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("not in the repository")
    patterns = re.search(r"package-data\]\nsklearn_jeidnn = (\[.*?\])", pyproject.read_text())[1]
    packed = {file for pattern in json.loads(patterns) for file in PACKAGE.glob(pattern)}
    others = {file for file in PACKAGE.rglob("*") if file.suffix in (".css", ".js", ".typed")}
    assert others == packed and len(packed) == 3
