"""The specification of a training: plain, frozen choices, whose hash is the training's identity."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from motionlib.files import content_key, sha256_file
from motionlib.networks import ALL_NETWORKS
from motionlib.training.data import AUGMENTATIONS

CHOICES = {
    "network": ALL_NETWORKS,
    "loss": ("weighted", "plain"),
    "sampler": ("shuffle", "weighted", "pairs"),
    "precision": ("float32", "bf16"),
    "schedule": ("constant", "cosine"),
    "augment": AUGMENTATIONS,
}


@dataclass(frozen=True)
class TrainSpec:
    """What is trained on what, and how: the identity of a run.

    Parameters
    ----------
    network : str
        One of `motionlib.networks.ALL_NETWORKS`.
    manifest, manifest_sha256 : str
        Path of a prepared manifest, which is not part of the key, and its checksum, which is;
        computed when empty.
    fold, test_fold : int or None
        Validation fold; None holds out a fifth of the patients. The test fold neither trains nor
        validates, because the network is judged on it.
    task : str, default="synthetic"
        ``synthetic``, ``mov01vs2`` or ``mov0vs1``; a label only.
    epochs : int, default=20
        Not stated in the paper; 20 is the published tool's default.
    patience : int or None, default=None
        Epochs without a lower validation loss after which a training stops; None trains them all.
    batch_size, learning_rate : int, default=16; float, default=1e-4
        Of Adam; §III-C.2.
    weight_decay : float, default=0.0
        Not stated in the paper; the published tool's default is 1e-4.
    loss : {"weighted", "plain"}
        Cross-entropy on two logits with or without weights ``n / (2 n_class)``.
    sampler : {"shuffle", "weighted", "pairs"}
        ``weighted`` draws scans with replacement, both classes alike, as the published tool does;
        it asks for ``loss="plain"``. ``pairs`` puts a copy with and a copy without motion of one
        original side by side in a batch, so that the head itself says nothing; each copy once.
    dropout : float or None
        None is the network's published one.
    seed : int, default=20
        Of weights, order, dropout and augmentation.
    init_from, trainable : str or None, tuple of str
        Key of the run the weights come from (see `motionlib.training.transfer`), and blocks that
        move.
    precision : {"float32", "bf16"}
        ``bf16`` runs the forward pass under autocast; GPU only.
    augment : {"none", "flip", "nuisance"}
        See `data.augmented`.
    schedule : {"constant", "cosine"}
        ``cosine`` warms up for a tenth of the steps and decays to zero.
    options : tuple of (str, value) pairs
        Further options of the network, such as ``(("patch", (8, 8, 8)),)``.
    freeze_bn_stats : bool, default=True
        Frozen batch-norm layers keep their running statistics; False is the published tool's
        behaviour, where they move.
    """

    network: str
    manifest: str
    manifest_sha256: str = ""
    fold: int | None = None
    test_fold: int | None = None
    task: str = "synthetic"
    epochs: int = 20
    patience: int | None = None
    batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    loss: str = "weighted"
    sampler: str = "shuffle"
    dropout: float | None = None
    seed: int = 20
    init_from: str | None = None
    trainable: tuple[str, ...] = ("all",)
    precision: str = "float32"
    augment: str = "none"
    schedule: str = "constant"
    options: tuple = ()
    freeze_bn_stats: bool = True

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}."
                )
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs is {self.epochs} and batch_size {self.batch_size}; at least one epoch "
                "and, for batch normalisation, two scans a batch are needed."
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}; expected an epoch or more, or None.")
        if self.sampler == "weighted" and self.loss == "weighted":
            raise ValueError("A weighted sampler already balances the classes; give loss='plain'.")
        object.__setattr__(self, "manifest", str(self.manifest))
        object.__setattr__(self, "trainable", tuple(self.trainable))
        if not self.manifest_sha256:
            object.__setattr__(self, "manifest_sha256", sha256_file(self.manifest))

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits of everything but the manifest's path."""
        values = asdict(self)
        del values["manifest"]
        if self.patience is None:  # those that were made before there was a choice keep their key
            del values["patience"]
        return content_key("TrainSpec", values)

    def folder(self, runs_dir: str | os.PathLike) -> Path:
        """Name the run's folder under `runs_dir`."""
        return Path(runs_dir) / f"{self.network}-{self.key}"
