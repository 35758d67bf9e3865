"""Early exits in a transformer from another library: tokens and their mask go in as a dict."""

import os
import pathlib
import sys

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import train_test_split

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn.metrics import exit_rates

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = pathlib.Path(os.environ.get("JEIDNN_DATA", ROOT.parent / "shared" / "data"))
FILE = FILE / "movie_reviews.tsv.gz"
N_WORDS, LENGTH = 3000, 24

try:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification
except ImportError:
    sys.exit("This example needs transformers: pip install -c constraints.txt '.[benchmark]'")
if not FILE.exists():
    sys.exit(f"{FILE} is missing: set JEIDNN_DATA to the folder that has it.")

table = pd.read_csv(FILE, sep="\t", quoting=3)
train, test, y_train, y_test = train_test_split(
    table["sentence"], table["label"], test_size=0.2, stratify=table["label"], random_state=0
)
vectorizer = CountVectorizer(max_features=N_WORDS, token_pattern=r"\S+").fit(train)
words_of, number = vectorizer.build_analyzer(), vectorizer.vocabulary_


def tokens(sentences):
    """Word numbers from 3 on, after 1 for the start; 2 is an unknown word, 0 fills up."""
    ids = np.zeros((len(sentences), LENGTH), dtype=np.int64)
    for row, sentence in zip(ids, sentences, strict=True):
        known = [1, *(number.get(word, -1) + 3 for word in words_of(sentence))][:LENGTH]
        row[: len(known)] = known
    return {"input_ids": ids, "attention_mask": np.int64(ids > 0)}


config = DistilBertConfig(
    vocab_size=N_WORDS + 3, max_position_embeddings=LENGTH, dim=32, n_layers=3, n_heads=2,
    hidden_dim=64, dropout=0.3, seq_classif_dropout=0.3, num_labels=2,
)  # fmt: skip
clf = EarlyExitClassifier(
    DistilBertForSequenceClassification, module__config=config, cost_weight=0.05,
    max_epochs=2, lr=2e-3, batch_size=64, random_state=0, verbose=1,
)  # fmt: skip
clf.fit(tokens(train), y_train)

X_test = tokens(test)
print(f"\nExits after {clf.exits_} and at the end")
print(f"Left at each: {exit_rates(clf.predict_exit(X_test), len(clf.exit_costs_)).round(2)}")
print(f"Accuracy {clf.score(X_test, y_test):.3f} at {clf.mean_cost(X_test):.2f} of the cost")
