"""The paper's four networks for 3-D volumes, and the shipped model's for planes, by name.

Every network is an ordered chain of named blocks (``block1`` ... ``fc1`` ...), so that a caller
can freeze, cache or read it block by block.
"""

from collections.abc import Sequence

import lazy_loader

__all__ = ["ALL_NETWORKS", "NETWORKS", "PAPER_SHAPE", "build_network", "cost_table"]
__getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"costs": ["cost_table"]})

NETWORKS = ("Conv5FC3", "ResNet3D", "SECNN", "ViT3D")  # of the paper
ALL_NETWORKS = (*NETWORKS, "Slices")
LARGEST = 4096  # number in an option: a description must not ask for days of building
PAPER_SHAPE = (169, 208, 179)  # networks are pinned at this grid; paper §III-B


def build_network(
    name: str, shape: Sequence[int], *, n_classes: int = 2, dropout: float | None = None, **options
):
    """Build a network with fresh weights from torch's current random state.

    Parameters
    ----------
    name, shape : str, sequence of 3 int
        One of `ALL_NETWORKS`, and voxels ``(I, J, K)`` of the volumes that it will see.
    n_classes : int, default=2
        Logits; the last one is motion.
    dropout : float, optional
        Probability of dropping in the head; None is the published one (0, 0.8, 0.5, 0 and 0).
    **options
        Further options of one network, such as ``patch`` of ViT3D.

    Returns
    -------
    torch.nn.Sequential
        Takes ``(B, 1, I, J, K)`` float32, gives ``(B, n_classes)``; its children are the blocks.

    Raises
    ------
    ValueError
        If the name is unknown, the shape too small, or an option not one of the network's.

    Notes
    -----
    Source: paper §III-C.2, Tables III and A.III.
    """
    # here, not above: whoever only asks for the names need not wait for torch
    from motionlib.networks.conv5fc3 import Conv5FC3
    from motionlib.networks.resnet3d import ResNet3D
    from motionlib.networks.secnn import SECNN
    from motionlib.networks.slices import Slices
    from motionlib.networks.vit3d import ViT3D

    built = (Conv5FC3, ResNet3D, SECNN, ViT3D, Slices)
    known = dict(zip(ALL_NETWORKS, built, strict=True))
    if name not in known:
        raise ValueError(f"Network {name!r} is not known; use one of {', '.join(ALL_NETWORKS)}.")
    shape = tuple(int(n) for n in shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"Shape {shape} is not three positive sizes (I, J, K).")
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise ValueError(f"Dropout {dropout} is not a probability in [0, 1).")
        options["dropout"] = dropout
    for option, value in options.items():
        sizes = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(n, int) and n > LARGEST for n in sizes):
            raise ValueError(f"{option} of {name} holds a number above {LARGEST}.")
    try:
        return known[name](shape, n_classes=n_classes, **options)
    except TypeError as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"{name} does not take these options: {said}.") from error
