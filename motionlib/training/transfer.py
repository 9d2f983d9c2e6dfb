"""Fine-tuning: named blocks of a pre-trained network are trained on, everything else stays.

Source: paper §III-C.3. Where the leading blocks are frozen, their features are the same in every
epoch: they are computed once, and the epochs run on what follows them.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from motionlib.compute.engines import configure_cpu
from motionlib.training.checkpoints import Model, fill, is_done, load_model, read_model
from motionlib.training.data import FeatureStore
from motionlib.training.fitting import Loop, Split, fresh_network, load_splits
from motionlib.training.spec import TrainSpec

CACHE_BYTES = 4 << 30  # features that take more are computed again in every epoch
CACHE_BATCH = 32


def fine_tune(
    source: str | os.PathLike | Model,
    spec: TrainSpec,
    runs_dir: str | os.PathLike,
    *,
    trainable: Sequence[str] | None = None,
    cache: bool = True,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Train named blocks of a pre-trained network on, and keep everything else as it is.

    Parameters
    ----------
    source : path-like or Model
        Folder of the pre-trained run, or the run as `checkpoints.load_model` has opened it.
    spec : TrainSpec
        How to fine-tune; its `init_from` and `trainable` are set from the other arguments.
    trainable : sequence of str, optional
        Names of blocks, such as ``("fc1", "fc2", "fc3")``, or ``("all",)``. None is every fully
        connected block, the paper's best.
    cache : bool, default=True
        Compute the features of a frozen prefix once instead of in every epoch; the result is the
        same to rounding. It has no effect where the prefix is not constant: augmentation, active
        dropout, or moving batch-norm statistics.
    runs_dir, device, progress
        As in `training.fit`.

    Returns
    -------
    Path
        The run folder; frozen tensors and buffers in it are those of `source` to the bit.

    Raises
    ------
    ValueError
        If a block is not the network's, or `source` is of another network or grid.

    Notes
    -----
    Source: paper §III-C.3, §IV-B (best with all but the fully connected layers frozen).
    """
    spec = specify(source, spec, trainable=trainable)
    folder = spec.folder(runs_dir)
    if is_done(folder):
        return folder
    model = load_model(source)
    train, validation = load_splits(spec, device)
    shape = train.store.shape
    if shape != model.shape:
        raise ValueError(
            f"The scans have shape {shape} where {model.name} was trained on "
            f"{model.shape}; prepare them on that grid."
        )
    with configure_cpu(), torch.random.fork_rng():
        network = fresh_network(spec, shape)
        fill(network, model.network.state_dict(), f"{spec.network} at {shape}", model.name)
        network.to(device)
        freeze_except(network, spec.trainable)
        trained = network
        if cache:
            trained, train, validation = _cached(spec, network, train, validation, device)
        return Loop(spec, folder, network, trained, train, validation, device).run(progress)


def specify(
    source: str | os.PathLike | Model, spec: TrainSpec, *, trainable: Sequence[str] | None = None
) -> TrainSpec:
    """Complete the specification of a `fine_tune`; a complete one stays as it is."""
    facts = read_model(source)
    if facts["network"] != spec.network:
        name = source.name if isinstance(source, Model) else Path(source).name
        raise ValueError(
            f"{name} is a {facts['network']}, the specification asks for {spec.network}; choose "
            "one network."
        )
    options = spec.options or tuple(sorted(facts["options"].items()))
    spec = replace(spec, init_from=facts["key"], options=options)
    with torch.random.fork_rng(), torch.device("meta"):  # names of blocks need no memory
        outline = fresh_network(spec, facts["shape"])
    return replace(spec, trainable=named_blocks(outline, trainable))


def named_blocks(network: nn.Sequential, trainable: Sequence[str] | None) -> tuple[str, ...]:
    """Check names of blocks, as in `fine_tune`, and put them in the network's order."""
    blocks = [name for name, _ in network.named_children()]
    if trainable is None:
        return tuple(name for name in blocks if name.startswith("fc"))
    asked = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    if asked == ("all",):
        return asked
    unknown = [name for name in asked if name not in blocks]
    if unknown or not asked:
        raise ValueError(
            f"Blocks {unknown} are not in {type(network).__name__}, which has "
            f"{', '.join(blocks)}; name at least one of them, or all."
        )
    return tuple(name for name in blocks if name in asked)


def freeze_except(network: nn.Sequential, trainable: Sequence[str]) -> None:
    """Let only the parameters of the blocks from `named_blocks` be trained, in place."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trainable[0] == "all" or name.split(".")[0] in trainable)


def frozen_prefix(spec: TrainSpec, network: nn.Sequential) -> int:
    """Count the leading blocks that give the same output for a scan in every epoch.

    None where the inputs change from epoch to epoch, or the first block trains, drops or adapts.
    """
    if spec.augment != "none":
        return 0
    count = 0
    for block in network.children():
        moving = any(p.requires_grad for p in block.parameters())
        dropping = any(isinstance(m, nn.Dropout) and m.p > 0 for m in block.modules())
        normed = any(isinstance(m, _BatchNorm) for m in block.modules())
        if moving or dropping or (normed and not spec.freeze_bn_stats):
            break
        count += 1
    return count


def _cached(spec: TrainSpec, network: nn.Sequential, train: Split, validation: Split, device: str):
    """Replace volumes by the features of the frozen prefix, and the network by what follows it.

    All three come back as they are where nothing is frozen or the features would take too much.
    The network that follows shares its blocks with `network`.
    """
    count, store = frozen_prefix(spec, network), train.store
    if count == 0:
        return network, train, validation
    blocks = list(network.named_children())
    prefix = nn.Sequential(*(block for _, block in blocks[:count])).eval()
    prefix.to(memory_format=torch.channels_last_3d)  # half the time on CPU, the same bits
    half = spec.precision == "bf16"
    parts = []
    with torch.no_grad(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
        for first in range(0, len(store), CACHE_BATCH):
            rows = np.arange(first, min(first + CACHE_BATCH, len(store)))
            x = store.batch(rows, device)
            parts.append(prefix(x.contiguous(memory_format=torch.channels_last_3d)))
            if parts[0].nbytes / len(parts[0]) * len(store) > CACHE_BYTES:
                return network, train, validation
    features = FeatureStore(torch.cat(parts), store)
    suffix = nn.Sequential(OrderedDict(blocks[count:]))
    return suffix, replace(train, store=features), replace(validation, store=features)
