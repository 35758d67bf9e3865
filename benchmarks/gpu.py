"""How many images a second does a ViT-B/16 answer on a GPU in bfloat16, whole and through its exits?

A ViT-B/16 of torch's own layers, trained here for a few minutes on 20,000 images of CIFAR-10, which it enlarges to
224 x 224 itself, beside its exits at a mean cost of a half. The whole network is called as its user would call it, in
bfloat16 under autocast and with its weights in bfloat16; the faster one counts. Images are float32 arrays on the host,
answers are labels on the host. All take part in several turns; images a second are those of the median turn.

Without a GPU only --quick runs, with a small network.
"""

import copy
import time

import claims
import datasets
import numpy as np
import records
import torch
from claims import Claim, Claims
from torch import nn
from torch.nn import functional as F

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
AUTOCAST, WEIGHTS = "whole, autocast", "whole, weights in bfloat16"
EXITS, PREDICTOR, PREDICT = "exits", "predictor", "predict"
WHOLE = (AUTOCAST, WEIGHTS)
# What the network learns from, what its exits learn from, what sets the gates, what is timed: the first two are the
# first training images in file order.
N_TRAIN, N_FIT, N_HELD_OUT, N_TEST = 20000, 4000, 2000, 2048
# Images in a call, and how many are timed in a turn.
BATCHES = {1024: 2048, 64: 1024, 1: 200}
N_TURNS = 11
COST = 0.5
# Points near that cost on the samples that set the gates; the nearest on the timed images is taken.
POLICIES, BUDGETS = ("learned", "confidence"), (0.45, 0.48, 0.5, 0.52, 0.55)
N_EXITS = 2
EPOCHS, BATCH, LR, WEIGHT_DECAY = 20, 512, 5e-4, 0.05
# Least images a second of the exits, relative to the whole network (project's 21st issue).
TIMES_AS_FAST = {1024: 1.8, 64: 1.8, 1: 1.0}
CUDA = "cuda"


class ViT(nn.Module):
    """A vision transformer for small images, which it enlarges."""

    def __init__(self, width=768, depth=12, n_heads=12, size=224, patch=16, n_classes=10):
        super().__init__()
        self.size, self.patch = size, patch
        # A matrix product of the patches' pixels; the usual convolution of them takes eight times as long.
        self.patches = nn.Linear(3 * patch**2, width)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                n_heads,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, images):
        images = F.interpolate(images, size=(self.size, self.size), mode="bilinear")
        n_patches = self.size // self.patch
        grid = images.reshape(-1, 3, n_patches, self.patch, n_patches, self.patch)
        tokens = self.patches(grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        tokens = (
            torch.cat([self.first.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.position
        )
        for block in self.blocks:
            tokens = block(tokens)
        return self.classifier(self.norm(tokens[:, 0]))


def run(quick, device):
    """Records of the whole network and its exits."""
    (X_train, y_train), fit, held_out, (X, y) = load(quick)
    start = time.perf_counter()
    module = trained(X_train, y_train, quick, device)
    train_seconds = time.perf_counter() - start
    clf = EarlyExitClassifier(
        module,
        freeze_backbone=True,
        exits=N_EXITS,
        companion=None,
        device=device,
        precision="bfloat16",
        max_epochs=1 if quick else 10,
        random_state=SEED,
    )
    clf.fit(*fit, X_val=held_out[0], y_val=held_out[1])
    at = nearest(clf, X)
    ways = calls(module, at, device)
    accuracies = {way: np.mean(call(X) == y) for way, call in ways.items()}
    for batch_size, n_timed in BATCHES.items():
        timed = X[: min(n_timed, 2 * batch_size) if quick else n_timed]
        times = in_turns(ways.values(), timed, batch_size, 2 if quick else N_TURNS)
        for way, own in zip(ways, times, strict=True):
            row = {
                "device": torch.cuda.get_device_name() if device == CUDA else device,
                "what": way,
                "batch_size": batch_size,
                "accuracy": accuracies[way],
                "mean_cost": 1.0 if way in WHOLE else at.mean_cost(timed),
                "images_per_second": 1 / np.median(own),
                "slowest_turn": 1 / np.max(own),
                "fastest_turn": 1 / np.min(own),
                "exits": " ".join(at.exits_),
                "exit_policy": at.exit_policy,
                "train_seconds": train_seconds,
                "cuda": torch.version.cuda or "none",
                "seed": SEED,
            }
            report(row)
            yield row


def load(quick):
    """Images, standardised, and labels: what trains the network, and its exits, sets the gates, is timed."""
    split = datasets.load_cifar10(N_TRAIN + N_FIT + N_HELD_OUT)
    codes = np.unique(split.y_train, return_inverse=True)[1]
    ends = np.cumsum([N_TRAIN, N_FIT])
    parts = [
        *zip(np.split(split.X_train, ends), np.split(codes, ends), strict=True),
        (split.X_test[:N_TEST], np.unique(split.y_test, return_inverse=True)[1][:N_TEST]),
    ]
    most = 300 if quick else N_TRAIN
    return [(standardised(X[:most]), y[:most]) for X, y in parts]


def standardised(X):
    """Pixels as float32, each image in one piece: decoded images have their channels last."""
    return np.ascontiguousarray((X / 255 - 0.47) / 0.25, dtype=np.float32)


def trained(X, y, quick, device):
    """The network, trained on these images in bfloat16."""
    torch.manual_seed(SEED)
    module = (ViT(64, 4, 4, size=64) if quick else ViT()).to(device)
    X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    epochs = 1 if quick else EPOCHS
    n_steps = epochs * (len(X) // BATCH) or 1
    optimizer = torch.optim.AdamW(module.parameters(), LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=n_steps)
    for step in range(n_steps):
        rows = torch.randint(len(X), (BATCH,), device=device)
        with torch.autocast(device, torch.bfloat16):
            loss = F.cross_entropy(module(changed(X[rows])).float(), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {n_steps}: loss {loss.item():.3f}", flush=True)
    return module.eval()


def changed(images):
    """Images, each shifted by up to four pixels, half of them mirrored."""
    n_images, shift = len(images), 4
    mirrored = torch.rand(n_images, 1, 1, 1, device=images.device) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    windows = F.pad(images, (shift,) * 4).unfold(2, 32, 1).unfold(3, 32, 1)
    down, right = torch.randint(2 * shift + 1, (2, n_images), device=images.device)
    return windows[torch.arange(n_images, device=images.device), :, down, right]


def nearest(clf, X):
    """The point, of learned gates or one threshold, whose mean cost on these images is nearest to a half."""
    points = [
        clf.at(budget=budget, exit_policy=policy) for policy in POLICIES for budget in BUDGETS
    ]
    return min(points, key=lambda point: abs(point.mean_cost(X) - COST))


def calls(module, clf, device):
    """What is timed: name -> function from images to labels."""
    engine = clf._predictor.cascade.engine
    converted = copy.deepcopy(module).bfloat16()

    @torch.inference_mode()
    def under_autocast(X):
        with torch.autocast(device, torch.bfloat16):
            return module(torch.from_numpy(X).to(device)).argmax(1).cpu().numpy()

    @torch.inference_mode()
    def with_weights(X):
        return converted(torch.from_numpy(X).to(device).bfloat16()).argmax(1).cpu().numpy()

    return {
        AUTOCAST: under_autocast,
        WEIGHTS: with_weights,
        EXITS: lambda X: engine.route((X,)).logits.argmax(1),
        PREDICTOR: clf.predictor().predict,
        PREDICT: clf.predict,
    }


def in_turns(functions, X, batch_size, n_turns):
    """Seconds of an image in each turn: (n_functions, n_turns)"""
    parts = [X[i : i + batch_size] for i in range(0, len(X), batch_size)]
    times = [[] for _ in functions]
    for _ in range(n_turns + 1):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            for part in parts:
                function(part)
            own.append((time.perf_counter() - start) / len(X))
    # The first turn warms up.
    return np.array(times)[:, 1:]


def report(row):
    print(
        f"{row['what']:26} batch {row['batch_size']:4}: {row['accuracy']:.4f} at cost {row['mean_cost']:.3f}, "
        f"{row['images_per_second']:7.0f} images/s ({row['slowest_turn']:.0f} to {row['fastest_turn']:.0f})",
        flush=True,
    )


def images_per_second(rows, what, batch_size):
    """NaN if it was not measured."""
    found = [row for row in rows if (row["what"], row["batch_size"]) == (what, batch_size)]
    return found[0]["images_per_second"] if found else np.nan


def relative_speed(rows, what, batch_size):
    """Images a second relative to the whole network, in the faster of its ways."""
    return images_per_second(rows, what, batch_size) / max(
        images_per_second(rows, whole, batch_size) for whole in WHOLE
    )


def targets(rows):
    for batch_size, least in TIMES_AS_FAST.items():
        yield Claim(
            f"ViT-B/16 at cost {COST}, batch {batch_size}: times as fast as the whole network",
            relative_speed(rows, PREDICTOR, batch_size),
            ">=",
            least,
        )


def regressions(rows):
    for row in rows:
        if row["what"] == EXITS and row["batch_size"] == max(BATCHES):
            # Else the speed is not that of the cost that is told.
            yield Claim("mean cost of the exits", abs(row["mean_cost"] - COST), "<=", 0.05)


QUESTION = "gpu"
CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(
        __doc__, quick="a small network of one step, on the CPU if there is no GPU"
    )
    options = claims.parse(parser, CLAIMS)
    has_gpu = torch.cuda.is_available()
    if not (has_gpu or options.quick):
        raise SystemExit(
            "gpu.py needs a GPU that torch can use (torch.cuda.is_available()); --quick does not."
        )
    records.write(QUESTION, list(run(options.quick, CUDA if has_gpu else "cpu")), options.quick)
    claims.settle(CLAIMS, [QUESTION], options.quick)
