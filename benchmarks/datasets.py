"""The real data sets of the benchmarks: arrays in the usual splits.

Files are read from the folder that ``JEIDNN_DATA`` names (default ``../shared/data`` from the
project's root). Where a table's file is missing, the public source (OpenML) is asked, and said so.
"""

import io
import os
import pathlib
import sys
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import fetch_openml, load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch.nn.functional import pad

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPENML_NAMES = {"adult": "adult", "letter": "letter", "pendigits": "pendigits", "krkopt": "kropt"}
TARGETS = {"adult": "income", "letter": "letter", "pendigits": "digit", "krkopt": "depth"}
SHIFT = 2
TABLES = ["adult", "letter", "digits", "pendigits", "krkopt"]
UNTUNED = ["phoneme", "churn", "spambase", "mammography", "wine_white"]


class Split(NamedTuple):
    X_train: np.ndarray
    X_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


def data_folder():
    return pathlib.Path(os.environ.get("JEIDNN_DATA", ROOT.parent / "shared" / "data"))


def load(name):
    """A table as floats, encoded as its usual pipeline would: (X_train, X_test, y_train, y_test)."""
    if name in UNTUNED:
        return load_untuned(name)
    return {
        "adult": load_adult,
        "letter": load_letter,
        "digits": load_digits_table,
        "pendigits": load_pendigits,
        "krkopt": load_krkopt,
    }[name]()


def load_adult():
    """Official split; one-hot for words, scaling for numbers."""
    table, y = read_table("adult")
    is_train = (table.pop("split") == "train").to_numpy()
    encode = make_column_transformer(
        (
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            make_column_selector(dtype_exclude="number"),
        ),
        (StandardScaler(), make_column_selector(dtype_include="number")),
    )
    X_train = encode.fit_transform(table[is_train])
    return _as_split(X_train, encode.transform(table[~is_train]), y[is_train], y[~is_train])


def load_letter():
    """The first 16,000 rows train, the last 4,000 test."""
    table, y = read_table("letter")
    X = table.to_numpy()
    return _as_split(X[:16000], X[16000:], y[:16000], y[16000:])


def load_pendigits():
    """Official split: other writers in the test rows."""
    table, y = read_table("pendigits")
    is_train = (table.pop("split") == "train").to_numpy()
    X = table.to_numpy()
    return _as_split(X[is_train], X[~is_train], y[is_train], y[~is_train])


def load_krkopt():
    """Chess endgames: 70/30 stratified, one-hot."""
    table, y = read_table("krkopt")
    X = OneHotEncoder(sparse_output=False).fit_transform(table)
    return _as_split(*train_test_split(X, y, test_size=0.3, stratify=y, random_state=0))


def load_digits_table():
    """scikit-learn's digits: 70/30 stratified, 64 columns."""
    X, y = load_digits(return_X_y=True)
    return _as_split(*train_test_split(X, y, test_size=0.3, stratify=y, random_state=0))


def load_untuned(name):
    """A small table as it comes, no column scaled or encoded: 70/30 stratified."""
    table = pd.read_csv(data_folder() / "tables" / f"{name}.csv.gz")
    y = table.pop("label").to_numpy()
    X = table.to_numpy(np.float64)
    return Split(*train_test_split(X, y, test_size=0.3, stratify=y, random_state=0))


def load_frames(name, seed=0):
    """A table as it comes, words included: data frames in the usual split, or 70/30 stratified by a seed."""
    if name in UNTUNED:
        table = pd.read_csv(data_folder() / "tables" / f"{name}.csv.gz")
        y = table.pop("label").to_numpy()
    elif name == "digits":
        table, y = load_digits(return_X_y=True, as_frame=True)
        y = y.to_numpy()
    else:
        table, y = read_table(name)
    official = table.pop("split") == "train" if "split" in table else None
    if official is not None and seed == 0:
        is_train = official.to_numpy()
    elif name == "letter" and seed == 0:
        is_train = np.arange(len(y)) < 16000
    else:
        return Split(*train_test_split(table, y, test_size=0.3, stratify=y, random_state=seed))
    return Split(table[is_train], table[~is_train], y[is_train], y[~is_train])


def load_cifar10(n_train=50000):
    """CIFAR-10 pixels, uint8 (n, 3, 32, 32): the first ``n_train`` training rows in file order, all test rows."""
    from PIL import Image

    archive = np.load(data_folder() / "cifar10_jpeg.npz")
    jpeg, offset = archive["jpeg"], archive["offset"]
    is_train, y = archive["is_train"].astype(bool), archive["classes"][archive["label"]]
    chosen_train = np.flatnonzero(is_train)[:n_train]

    def decode(rows):
        files = (io.BytesIO(jpeg[offset[i] : offset[i + 1]].tobytes()) for i in rows)
        return np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files]).transpose(
            0, 3, 1, 2
        )

    test = np.flatnonzero(~is_train)
    return Split(decode(chosen_train), decode(test), y[chosen_train], y[test])


def load_frozen_cifar10():
    """The shared network, the 40,000 rows that trained it, 10,000 that it has not seen, the test rows."""
    folder = data_folder().parent / "backbones"
    sys.path.insert(0, str(folder))
    from cifar_resnet import CifarResNet
    from safetensors.torch import load_file

    backbone = CifarResNet()
    backbone.load_state_dict(load_file(folder / "cifar_resnet.safetensors"))
    split = load_cifar10()
    X_train, X_test = (np.float32((X / 255 - 0.47) / 0.25) for X in (split.X_train, split.X_test))
    seen, unseen = (
        (X_train[rows], split.y_train[rows]) for rows in np.split(np.arange(50000), [40000])
    )
    return backbone.eval(), seen, unseen, (X_test, split.y_test)


def load_frozen_cifar10_fit():
    """(parameters, training rows, held-out rows by name, test rows) of heads of ten epochs on the shared network"""
    backbone, train, (X_val, y_val), test = load_frozen_cifar10()
    params = {"module": backbone, "freeze_backbone": True, "max_epochs": 10, "batch_size": 512}
    return params, train, {"X_val": X_val, "y_val": y_val}, test


def shifted_and_mirrored(batch):
    """Some rows of images, each shifted by up to two pixels, half of them mirrored.

    Without it a companion of width 16 is right on 94 % of the rows that train it and 74 % of others.
    """
    given, y = batch.dataset[batch.rows]
    (images,) = given["X"]
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    windows = pad(images, (SHIFT,) * 4).unfold(2, 32, 1).unfold(3, 32, 1)
    down, right = torch.randint(2 * SHIFT + 1, (2, len(images)))
    return {**given, "X": (windows[torch.arange(len(images)), :, down, right],)}, y


def load_movie_reviews(n_words=3000, length=32):
    """Sentences as numbers of their words and a mask; the first four fifths in file order train."""
    table = pd.read_csv(data_folder() / "movie_reviews.tsv.gz", sep="\t", quoting=3)
    y, is_train = table["label"].to_numpy(), np.arange(len(table)) < len(table) * 4 // 5
    vectorizer = CountVectorizer(max_features=n_words, token_pattern=r"\S+")
    words_of = vectorizer.fit(table["sentence"][is_train]).build_analyzer()
    ids = np.zeros((len(table), length), dtype=np.int64)
    for row, sentence in zip(ids, table["sentence"], strict=True):
        # 0 fills up, 1 starts, 2 is an unknown word.
        known = [1, *(vectorizer.vocabulary_.get(word, -1) + 3 for word in words_of(sentence))]
        row[: len(known)] = known[:length]
    X = {"input_ids": ids, "attention_mask": np.int64(ids > 0)}
    X_train, X_test = ({k: v[part] for k, v in X.items()} for part in (is_train, ~is_train))
    return Split(X_train, X_test, y[is_train], y[~is_train])


def small_transformer(X):
    """DistilBERT in small, untrained, for these tokens."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=int(X["input_ids"].max()) + 1,
        max_position_embeddings=X["input_ids"].shape[1],
        dim=64,
        n_layers=4,
        n_heads=4,
        hidden_dim=128,
        dropout=0.3,
        seq_classif_dropout=0.3,
        num_labels=2,
    )
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(config)


def read_table(name):
    """(table of features and split, target)"""
    path = data_folder() / f"{name}.csv.gz"
    if path.exists():
        table = pd.read_csv(path)
        return table, table.pop(TARGETS[name]).to_numpy()
    print(f"{path} is missing (set JEIDNN_DATA); asking OpenML for {OPENML_NAMES[name]}.")
    fetched = fetch_openml(OPENML_NAMES[name], version=1, as_frame=True)
    table = fetched.data
    if name in ("adult", "pendigits"):
        print("OpenML's copy has no official split: the first two thirds of the rows train.")
        table["split"] = np.where(np.arange(len(table)) < 2 * len(table) // 3, "train", "test")
    return table, fetched.target.to_numpy()


def _as_split(X_train, X_test, y_train, y_test):
    return Split(np.float32(X_train), np.float32(X_test), y_train, y_test)
