"""What a network costs: parameters, floating-point operations and kept activations, counted.

Shapes alone are followed (torch's meta device), so that the paper's grid needs no memory.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from motionlib.networks import build_network


def cost_table(names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Count every network at every named size.

    Parameters
    ----------
    names, shapes : sequence of str, mapping of str to 3 int
        Names of `NETWORKS`, and named grids, voxels (I, J, K).

    Returns
    -------
    DataFrame
        One row for each pair: ``model``, ``grid``, ``shape``, ``parameters``, ``gflop_forward`` and
        ``gflop_training`` for one volume (two operations a multiply-add), and ``activations_mib``:
        float32 outputs of every layer, which are kept for the backward pass.
    """
    return pd.DataFrame(
        [
            {"model": name, "grid": grid, "shape": "x".join(map(str, shape)), **_count(name, shape)}
            for name in names
            for grid, shape in shapes.items()
        ]
    )


def _count(name: str, shape: Sequence[int]) -> dict[str, float]:
    """Count one network at one size."""
    with torch.device("meta"):
        network = build_network(name, shape)
        volume = torch.empty(1, 1, *shape)
    kept = 0

    def keep(_module, _inputs, output):
        nonlocal kept
        kept += output.numel() * 4

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(keep) for leaf in leaves]
    with FlopCounterMode(display=False) as forward:
        output = network(volume)
    for hook in hooks:
        hook.remove()
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    operations = forward.get_total_flops()
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop_forward": operations / 1e9,
        "gflop_training": (operations + backward.get_total_flops()) / 1e9,
        "activations_mib": kept / 2**20,
    }
