"""Networks and grid sizes go in; parameters, operations, memory and GPU-hours come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from motionlib.networks import PAPER_SHAPE, build_network

TRAININGS = {  # trainings of the whole study at the paper's scale, by network, 5 folds each
    "Conv5FC3": 5 * (6 + 2 * 3 + 5),  # Table II; scratch, fine-tuned, k-space; freeze study
    "ResNet3D": 5 * 2,  # Tables III and A.III
    "SECNN": 5 * 2,
    "ViT3D": 5 * 2,
}
SCANS = {"train": 856, "validate": 184}  # Table A.I
EPOCHS = 50  # not stated in the paper; enough for the lowest validation loss in ours
ASSUMED_BANDWIDTH_TB_S = 3.3  # one H100, its data sheet; not measured by this study
ASSUMED_TFLOP_S = 200.0  # a quarter of an H100's dense bf16 rate; not measured by this study


def count(name: str, shape: Sequence[int]) -> dict[str, float]:
    """Count a network's parameters, operations and activations without allocating any.

    Parameters
    ----------
    name : str
        A name of `networks.NETWORKS`.
    shape : sequence of 3 int
        Voxels (I, J, K).

    Returns
    -------
    dict
        ``parameters``, ``gflop_forward`` and ``gflop_training`` for one volume (two operations a
        multiply-add), and ``activations_mib``: float32 outputs of every layer, kept for backward.
    """
    from torch.utils.flop_counter import FlopCounterMode

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


def table(names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Count every network at every named size: one row for each pair."""
    return pd.DataFrame(
        [
            {"model": name, "grid": grid, "shape": "x".join(map(str, shape)), **count(name, shape)}
            for name in names
            for grid, shape in shapes.items()
        ]
    )


def plan(names: Sequence[str], *, epochs: int = EPOCHS) -> pd.DataFrame:
    """Estimate the GPU-hours of the whole study at the paper's scale.

    A training step reads and writes each kept activation about three times in bf16, or computes;
    the slower of the two bounds it.  Nothing here was measured: both rates are assumptions and
    stand in the table.

    Returns
    -------
    DataFrame
        One row a network and a total: trainings, seconds an epoch, what bounds it, hours on one
        and on eight GPUs (trainings are independent).
    """
    rows = []
    scans = SCANS["train"] + SCANS["validate"] / 3  # validation has no backward
    for name in names:
        cost = count(name, PAPER_SHAPE)
        memory = 3 * cost["activations_mib"] * 2**20 / 2 / (ASSUMED_BANDWIDTH_TB_S * 1e12)
        compute = cost["gflop_training"] / (ASSUMED_TFLOP_S * 1e3)
        seconds = scans * max(memory, compute)
        hours = TRAININGS[name] * epochs * seconds / 3600
        rows.append(
            {
                "model": name,
                "trainings": TRAININGS[name],
                "epochs": epochs,
                "seconds_per_epoch": seconds,
                "bound_by": "memory" if memory > compute else "arithmetic",
                "hours_on_one": hours,
                "hours_on_eight": hours / 8,
            }
        )
    result = pd.DataFrame(rows)
    total = result[["trainings", "hours_on_one", "hours_on_eight"]].sum()
    result.loc[len(result)] = {"model": "all", **total}
    return result.assign(
        assumed_tb_s=ASSUMED_BANDWIDTH_TB_S, assumed_tflop_s=ASSUMED_TFLOP_S, measured=False
    )
