"""Whether a network may hold its weights in bfloat16, instead of converting them in each call.

Under autocast weights are converted in each call, and what lies between matrix products computes in float32. A GPU
takes half as long again for that (see decision 52), a CPU up to a third for a single image.
"""

import torch

from .._exits.network import EarlyExitNetwork

# Samples on which both ways are compared.
N_COMPARED = 32
# Most that weights in bfloat16 may err, relative to autocast, and besides, relative to what is computed: its rounding.
MOST_ERROR, ROUNDING = 4.0, 2**-8


@torch.no_grad()
def converts(network: EarlyExitNetwork, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether stages with weights in the network's precision run, and answer about as exactly as under autocast.

    Tables keep autocast: their numbers may be too large for the precision, and only the module scales them.

    Parameters
    ----------
    network : EarlyExitNetwork
        Of one module, in evaluation mode.
    inputs : tuple of tensor (n_samples, ...)
        A few samples, on the network's device.
    """
    if not network.lossy or any(map(_is_table, inputs)):
        return False
    return answers_as_exactly(network, inputs)


def _is_table(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim == 2


def answers_as_exactly(network: EarlyExitNetwork, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether what exits read is about as exact with converted weights as under autocast."""
    exact, converted = network._shallow_copy(), network._shallow_copy()
    exact.precision, converted.converts = "float32", True
    try:
        features = _features(converted.for_inference(), inputs)
    except Exception:  # whatever a user's module raises in another dtype
        return False
    expected = _features(exact, inputs)
    return all(map(_is_as_exact, features, _features(network, inputs), expected))


def _features(network: EarlyExitNetwork, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    with network.inference():
        return network.exit_features(*inputs)


def _is_as_exact(found: torch.Tensor, autocast: torch.Tensor, expected: torch.Tensor) -> bool:
    most = MOST_ERROR * (autocast - expected).norm() + ROUNDING * expected.norm()
    return bool((found - expected).norm() <= most)
