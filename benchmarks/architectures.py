"""Does a network cut into three exits answer what it answers whole, and as fast?

Eleven architectures, random weights (transformers' from configuration), two early exits spread by cost. All rows stay:
the answers are compared. Half of the rows leave at each cut: those that stay are compared row by row. Time: the stages
one after the other against the uncut module, taken in turns, medians.
"""

import statistics
import sys
import time

import claims
import datasets
import records
import torch
from claims import Claim, Claims
from torch import nn

from sklearn_jeidnn._cut import cut
from sklearn_jeidnn._cut.graphs import LogitsModule

SEED = 0
N_REPEATS = 101
N_ROWS = 8
N_CLASSES = 10
VIT = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3}
VIT |= {"intermediate_size": 768, "image_size": 96, "patch_size": 8}
TEXT = {"vocab_size": 5000, "max_position_embeddings": 128}


def load(quick):
    """(name, module, its inputs by name or position)"""
    import transformers as hf

    sys.path.insert(0, str(datasets.data_folder().parent / "backbones"))
    from cifar_resnet import CifarResNet

    torch.manual_seed(SEED)
    images = {"pixel_values": torch.randn(N_ROWS, 3, 96, 96)}
    ids = torch.randint(0, 5000, (N_ROWS, 64))
    mask = (torch.arange(64) < torch.randint(8, 64, (N_ROWS, 1))).long()
    tokens = {"input_ids": ids, "attention_mask": mask}
    bert = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4}
    bert |= {"intermediate_size": 1024}
    distilled = {"dim": 256, "n_layers": 6, "n_heads": 4, "hidden_dim": 1024}
    swin = {"image_size": 96, "patch_size": 2, "window_size": 6, "depths": [2, 2, 6, 2]}
    small = {"image_size": 96}
    configured = [
        (hf.ViTForImageClassification, hf.ViTConfig, VIT, images),
        (hf.BertForSequenceClassification, hf.BertConfig, {**TEXT, **bert}, tokens),
        (hf.ResNetForImageClassification, hf.ResNetConfig, {}, images),
        (hf.DeiTForImageClassification, hf.DeiTConfig, VIT, images),
        (hf.BeitForImageClassification, hf.BeitConfig, VIT, images),
        (
            hf.DistilBertForSequenceClassification,
            hf.DistilBertConfig,
            {**TEXT, **distilled},
            tokens,
        ),
        (hf.ConvNextForImageClassification, hf.ConvNextConfig, small, images),
        (hf.SwinForImageClassification, hf.SwinConfig, swin, images),
        (hf.MobileNetV2ForImageClassification, hf.MobileNetV2Config, small, images),
        (hf.EfficientNetForImageClassification, hf.EfficientNetConfig, small, images),
    ]
    yield "CifarResNet", CifarResNet(), {None: torch.randn(64, 3, 32, 32)}
    for kind, config, params, inputs in configured[: 2 if quick else None]:
        yield kind.__name__, kind(config(**params, num_labels=N_CLASSES)), inputs


@torch.no_grad()
def run(name, module, inputs, n_repeats):
    names = None if None in inputs else tuple(inputs)
    inputs = tuple(inputs.values())
    whole = LogitsModule(module, names)
    take_batch_statistics(whole, inputs)
    start = time.perf_counter()
    probe = tuple(tensor[:3] for tensor in inputs)
    stages, exits = cut(module, 2, probe, names, N_CLASSES, frozen=True, head_cost=lambda output: 0)
    cut_seconds = time.perf_counter() - start
    expected = whole(*inputs)
    difference = (in_stages(stages, *inputs) - expected).abs().max()
    stay, answer = half_leaves(stages, inputs)
    seconds = side_by_side(n_repeats, lambda: whole(*inputs), lambda: in_stages(stages, *inputs))
    return {
        "module": name,
        "seed": SEED,
        "parameters": sum(p.numel() for p in module.parameters()),
        "exits": " ".join(exits),
        "largest_answer": float(expected.abs().max()),
        "difference_all_stay": float(difference),
        "difference_rows_leave": float((answer - expected[stay]).abs().max()),
        "cut_seconds": cut_seconds,
        "whole_seconds": statistics.median(seconds[0]),
        "time_ratio": ratio(*seconds),
    }


def take_batch_statistics(module, inputs):
    """As training would: with those of new layers some of these networks answer 0 whatever they see."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    module.train()(*inputs)
    module.eval()


def in_stages(stages, *carried):
    for stage in stages:
        carried = stage(*carried)
    return carried


def half_leaves(stages, carried):
    """(rows that are left after every second one left at each cut, their answers)"""
    rows = torch.arange(len(carried[0]))
    for stage in stages[:-1]:
        keep = torch.arange(1, len(rows), 2)
        rows, carried = rows[keep], stage.keep_rows(stage(*carried), keep)
    return rows, stages[-1](*carried)


def side_by_side(n_repeats, *functions):
    """Seconds of each function, taken in turns that change places."""
    seconds = [[] for _ in functions]
    for turn in range(n_repeats + 2):
        order = range(len(functions))
        for i in order if turn % 2 else reversed(order):
            start = time.perf_counter()
            functions[i]()
            seconds[i].append(time.perf_counter() - start)
    return [taken[2:] for taken in seconds]


def ratio(whole, staged):
    """Median over turns of the time in stages to the time whole: what disturbs a turn disturbs both."""
    return statistics.median(s / w for w, s in zip(whole, staged, strict=True))


def report(row):
    print(
        f"{row['module']:36}{row['parameters'] / 1e6:6.1f} M  differs by {row['difference_all_stay']:.0e}, "
        f"{row['difference_rows_leave']:.0e} where rows leave  time x {row['time_ratio']:.3f}  "
        f"cut in {row['cut_seconds']:.1f} s after {row['exits']}",
        flush=True,
    )


def targets(rows):
    for row in rows:
        yield Claim(f"{row['module']}: time in stages", row["time_ratio"], "<=", 1.03)


def regressions(rows):
    for row in rows:
        name = row["module"]
        yield Claim(f"{name}: answers differ by", row["difference_all_stay"], "<=", 1e-5)
        yield Claim(f"{name}: where rows leave by", row["difference_rows_leave"], "<=", 1e-5)
        yield Claim(f"{name}: time in stages", row["time_ratio"], "<=", 1.15)


CLAIMS = {"architectures": Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="three architectures, few repeats")
    quick = claims.parse(parser, CLAIMS).quick
    rows = []
    for job in load(quick):
        rows.append(run(*job, n_repeats=5 if quick else N_REPEATS))
        report(rows[-1])
    records.write("architectures", rows, quick)
    claims.settle(CLAIMS, quick=quick)
