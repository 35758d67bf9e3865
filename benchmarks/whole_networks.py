"""Services of one whole network, by the code that serves exits; ``serving.py`` runs them.

python benchmarks/whole_networks.py "plain torch" cifar10 DIR PORT
python benchmarks/whole_networks.py "whole int8" minilm DIR PORT
"""

import pathlib
import sys
from dataclasses import replace

import numpy as np

from sklearn_jeidnn._engines.onnx_graphs import INPUT, numbered
from sklearn_jeidnn._engines.onnx_sessions import session
from sklearn_jeidnn._operate.cascade import RoutedArrays
from sklearn_jeidnn._serving.server import run
from sklearn_jeidnn.runtime import Predictor
from sklearn_jeidnn.serving import create_app

HOST, PLAIN = "127.0.0.1", "plain torch"


class WholeNetwork:
    """An engine that runs one network, whose samples all leave at the last exit."""

    batch_size = 256

    def __init__(self, logits, last_exit):
        self._logits, self._last_exit = logits, last_exit

    def route(self, arrays, exits=None):
        logits = self._logits(arrays)
        return RoutedArrays(logits=logits, exit_index=np.full(len(logits), self._last_exit))


def in_torch(data):
    """The network as its user calls it; the service for integers loads no torch."""
    import datasets
    import fine_tuned
    import real_networks
    import torch

    torch.set_num_threads(1)
    is_text = data == "minilm"
    module = fine_tuned.minilm(False).network if is_text else datasets.load_frozen_cifar10()[0]
    call = real_networks.whole_in_torch(module)

    def logits(arrays):
        # What came over the network may not be written to.
        answer = call([array.copy() for array in arrays])
        return getattr(answer, "logits", answer).numpy()

    return logits


def in_integers(folder):
    whole = session((folder / "whole.onnx").read_bytes(), 1)
    names = {value.name for value in whole.get_inputs()}

    def logits(arrays):
        inputs = {numbered(INPUT, k): array for k, array in enumerate(arrays)}
        return whole.run(None, {name: inputs[name] for name in names})[0]

    return logits


def serve(what, data, folder, port):
    """The service, until it is told to end."""
    predictor = Predictor.load(folder / "exits", n_threads=1)
    inner = predictor._predictor
    logits = in_torch(data) if what == PLAIN else in_integers(folder)
    engine = WholeNetwork(logits, len(inner.cascade.exits))
    predictor._predictor = replace(inner, cascade=replace(inner.cascade, engine=engine))
    sys.setswitchinterval(0.0005)
    run(create_app(predictor, watch=False), HOST, port)


if __name__ == "__main__":
    what, data, folder, port = sys.argv[1:]
    serve(what, data, pathlib.Path(folder), int(port))
