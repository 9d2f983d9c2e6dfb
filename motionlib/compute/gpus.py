"""Workers of this machine go in; each sees a GPU of its own as its only one."""

from __future__ import annotations

import os

from distributed import WorkerPlugin


class OwnGpu(WorkerPlugin):
    """Hide every GPU but one from a worker, by the worker's number.

    Parameters
    ----------
    gpus : list of str
        What ``CUDA_VISIBLE_DEVICES`` may name; more workers than GPUs share them in turn.
    """

    name = "own-gpu"

    def __init__(self, gpus: list[str]):
        self.gpus = list(gpus)

    def setup(self, worker) -> None:
        """Choose before the worker's first task, hence before CUDA starts in it."""
        if not self.gpus:
            return  # torch itself says, in the task, that there is none
        os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[int(worker.name) % len(self.gpus)]


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]
