"""Train the gates of a network whose members are trained."""

import torch

from .._exits.network import EarlyExitNetwork
from .._operate.frontier import LEARNED, Frontier
from .._operate.operating_point import OperatingPoint
from .bilevel import train_bilevel
from .divergence import check_finite
from .features import ExitFeatures
from .joint import answers_of, train_jointly
from .priced_network import PricedNetwork
from .schedules import fixed_epochs
from .spec import CascadeSpec


def train_gates(
    spec: CascadeSpec, priced_network: PricedNetwork, train: ExitFeatures, held_out: ExitFeatures
) -> tuple[Frontier, OperatingPoint]:
    """Train the network's gates in place; return the frontier and the requested point."""
    network, exit_costs = priced_network.network, priced_network.exit_costs
    batch_size = spec.batch_size if spec.batch_size > 0 else len(train.y)
    if spec.is_joint:
        return train_jointly(
            network,
            train,
            held_out,
            exit_costs,
            spec.operating_target(priced_network.plain_seconds),
            batch_size,
            spec.exit_policy,
            spec.observed_share,
        )
    train_bilevel(
        network,
        train,
        held_out,
        torch.as_tensor(exit_costs, dtype=torch.float32, device=spec.device),
        spec.cost_weight,
        gate_loss=spec.gate_loss,
        max_epochs=fixed_epochs(spec.max_epochs),
        batch_size=batch_size,
        stored=spec.stored,
    )
    check_finite(network.heads, network.gates)
    return _bilevel_point(spec.cost_weight, priced_network, held_out)


def check_heads(spec: CascadeSpec, network: EarlyExitNetwork) -> None:
    """Refuse the paper's gates where no head learns, since those take turns with heads."""
    if not spec.is_joint and not any(True for _ in network.heads.parameters()):
        raise ValueError(
            f"gate_training={spec.gate_training!r} trains gates and heads in turns, and no exit has a head that "
            f"learns; give gate_training='joint', or exits inside a network."
        )


def _bilevel_point(
    cost_weight: float, priced_network: PricedNetwork, held_out: ExitFeatures
) -> tuple[Frontier, OperatingPoint]:
    """Return the frontier on the held-out samples, and the point of the network's gates."""
    network = priced_network.network
    frontier = Frontier(
        answers=answers_of(network.heads, held_out),
        exit_mass=network.exit_mass,
        exit_costs=priced_network.exit_costs,
    )
    point = OperatingPoint(
        cost_weight=cost_weight, gates=network.gates.point(), exit_policy=LEARNED
    )
    return frontier, point
