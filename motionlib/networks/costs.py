"""Networks and grid sizes go in; parameters, operations, memory and GPU-hours come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from motionlib.files import repository
from motionlib.networks import PAPER_SHAPE, build_network

N_FOLDS = 5
COPIES = 6  # of a training head in the recommended recipe, see `studydata.synthetic_set`
RESEARCH = (856, 184)  # scans that train and validate, Table A.I
SEVERE, MILD = (2919, 741), (2540, 647)  # of the two tasks of the warehouse, Table A.II
SCANS_A_PATIENT = 5500 / 4177  # of the warehouse, Table I
LABELLED = (100, 300, 1000)  # patients in the learning curve
EPOCHS = 50  # not stated in the paper; enough for the lowest validation loss in ours
ASSUMED_BANDWIDTH_TB_S = 3.3  # one H100, its data sheet; not measured by this study
ASSUMED_TFLOP_S = 200.0  # a quarter of an H100's dense bf16 rate; not measured by this study
SHIPPED = "as shipped"  # how the way is called in benchmarks/gpu_training.py that trains the study


@dataclass(frozen=True)
class Group:
    """Trainings of a notebook that cost alike.

    Attributes
    ----------
    notebook, name : str
        Where, and what for.
    networks : tuple of str
        Each is trained `a_fold` times a fold.
    a_fold : int
        Trainings of one network and fold.
    scans : tuple of 2 float
        Scans that train and that validate in one epoch.
    cached : bool
        Most of the network is frozen, so that only one pass costs (see `transfer.cached`).
    """

    notebook: str
    name: str
    networks: tuple[str, ...]
    a_fold: int
    scans: tuple[float, float]
    cached: bool = False


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


def groups(*, recommended: int = 3, patients: Sequence[int] = LABELLED) -> list[Group]:
    """List what the notebooks train, group by group.

    Parameters
    ----------
    recommended : int
        Severities trained with the recommended recipe.
    patients : sequence of int
        Numbers of graded patients in the learning curve.

    Returns
    -------
    list of Group
        At the paper's sizes.  One fine-tuning is not there: the depth of the freeze study that
        was best is not trained again.
    """
    first, others = ("Conv5FC3",), ("ResNet3D", "SECNN", "ViT3D")
    copies = tuple(COPIES * n for n in RESEARCH)
    few = sum(patients) * SCANS_A_PATIENT
    curve = (0.8 * few / max(1, len(patients)), 0.2 * few / max(1, len(patients)))
    return [
        Group("02", "paper's recipe, 2 simulators x 3 severities", first, 6, RESEARCH),
        Group("02", "recommended recipe, 6 copies a head", first, recommended, copies),
        Group("03", "paper's recipe, 2 simulators", others, 2, RESEARCH),
        Group("04", "freeze study, some blocks frozen", first, 4, SEVERE, cached=True),
        Group("04", "freeze study, all blocks free", first, 1, SEVERE),
        Group("04", "fine-tuned, severe motion", first, 2, SEVERE),
        Group("04", "fine-tuned, mild motion", first, 3, MILD),
        Group("04", "from scratch, severe motion", first, 1, SEVERE),
        Group("04", "from scratch, mild motion", first, 1, MILD),
        Group("04", "learning curve, both ways", first, 2 * len(patients), curve),
    ]


def trainings(n_folds: int = N_FOLDS, **sizes) -> int:
    """Count the trainings of the whole study; keywords as in `groups`."""
    return n_folds * sum(len(one.networks) * one.a_fold for one in groups(**sizes))


def measured_rates(path: Path | None = None) -> dict[str, tuple[float, str]]:
    """Read the images a second that a GPU has trained, and its name, by network.

    Parameters
    ----------
    path : Path, optional
        Table of ``benchmarks/gpu_training.py``; the repository's by default.

    Returns
    -------
    dict
        Empty where nothing was measured.
    """
    path = path or repository() / "benchmarks" / "results" / "training_gpu.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    shipped = table[table["way"] == SHIPPED].dropna(subset="images_per_s")
    columns = (shipped["network"], shipped["images_per_s"], shipped["device"])
    return {name: (float(rate), device) for name, rate, device in zip(*columns, strict=True)}


def plan(
    names: Sequence[str], *, epochs: int = EPOCHS, measurements: Path | None = None
) -> pd.DataFrame:
    """Estimate the GPU-hours of the whole study at the paper's scale.

    Where a GPU was measured, its images a second count.  Elsewhere a training step reads and
    writes each kept activation about three times in bf16, or computes; the slower of the two
    bounds it, and both rates are assumptions that stand in the table.  Fine-tuning is counted as
    if all blocks were free, its dearest case; where blocks are frozen their features are computed
    once.  Making copies, checkpoints and predicting do not count: the whole training of Conv5FC3
    that was timed (2.8 minutes, ``training_gpu.csv``) took twice what its steps alone take.

    Parameters
    ----------
    names : sequence of str
        Networks to count.
    epochs : int
        Of every training.
    measurements : Path, optional
        As in `measured_rates`.

    Returns
    -------
    DataFrame
        One row for each group and network, and a total: trainings, scans an epoch and the memory
        that they take as float16 (a job holds them all), seconds an epoch, what bounds it, hours
        on one and on eight GPUs (trainings are independent), and whether the rate was measured,
        on which device.
    """
    rates, rows = measured_rates(measurements), []
    for one in groups():
        for name in [name for name in one.networks if name in names]:
            seconds, bound = seconds_a_scan(name, rates)
            train, validate = one.scans
            epoch = 0.0 if one.cached else (train + validate / 3) * seconds
            once = (train + validate) / 3 * seconds if one.cached else 0.0  # only forward
            number = N_FOLDS * one.a_fold
            hours = number * (epochs * epoch + once) / 3600
            rows.append(
                {
                    "notebook": one.notebook,
                    "group": one.name,
                    "model": name,
                    "trainings": number,
                    "epochs": epochs,
                    "scans_per_epoch": round(train + validate),
                    "scans_gib": (train + validate) * 2 * math.prod(PAPER_SHAPE) / 2**30,
                    "seconds_per_epoch": epoch,
                    "bound_by": bound,
                    "hours_on_one": hours,
                    "hours_on_eight": hours / 8,
                    "measured": name in rates,
                    "device": rates[name][1] if name in rates else "",
                }
            )
    result = pd.DataFrame(rows)
    total = result[["trainings", "hours_on_one", "hours_on_eight"]].sum()
    whole = {"notebook": "all", "model": "all", **total, "measured": result["measured"].all()}
    result = pd.concat([result, pd.DataFrame([whole])], ignore_index=True)
    return result.assign(assumed_tb_s=ASSUMED_BANDWIDTH_TB_S, assumed_tflop_s=ASSUMED_TFLOP_S)


def seconds_a_scan(name: str, rates: Mapping[str, tuple[float, str]]) -> tuple[float, str]:
    """Seconds of a training step for one scan at the paper's grid, and what bounds them."""
    if name in rates:
        return 1 / rates[name][0], "measured"
    cost = count(name, PAPER_SHAPE)
    memory = 3 * cost["activations_mib"] * 2**20 / 2 / (ASSUMED_BANDWIDTH_TB_S * 1e12)
    compute = cost["gflop_training"] / (ASSUMED_TFLOP_S * 1e3)
    return max(memory, compute), "memory" if memory > compute else "arithmetic"
