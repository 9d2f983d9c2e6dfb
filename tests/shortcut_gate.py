"""The gate of every recipe: can its two classes be told apart when nobody moves?

The moved copies are made by the recipe's own code, but the course of motion is frozen in one pose.
A tiny network then learns to tell such copies from the recipe's negatives on some heads, and is
tried on others.  Where it succeeds, a detector may learn the simulator's trace in place of motion.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from motionlib.metrics import auc

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
SHAPE, N_HEADS, N_DRAWS, STEPS = (20, 28, 24), 36, 2, 120
NOTHING_LEARNT = 0.55  # AUC on unseen heads, at most


def noisy_heads() -> list[torch.Tensor]:
    """Balls with sulci and noise, each its own."""
    rng = np.random.default_rng(24)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    made = []
    for _ in range(N_HEADS):
        size = rng.uniform(0.6, 0.75, 3)
        radius = np.sqrt(sum((x / s) ** 2 for x, s in zip(grid, size, strict=True)))
        waves = sum(np.sin(rng.uniform(8, 16) * x + rng.uniform(0, 6)) for x in grid)
        signal = (1 + 0.2 * waves) / (1 + np.exp(30 * (radius - 1)))
        noise = rng.normal(size=(2, *SHAPE)) * 0.03
        made.append(torch.from_numpy(np.hypot(signal + noise[0], noise[1]).astype(np.float32)))
    return made


def freeze(monkeypatch, module, draws) -> None:
    """Freeze the courses that a module draws at their last pose, as if that were motion enough."""
    for name in draws:
        draw = getattr(module, name)

        def frozen(*args, draw=draw, **options):
            course = draw(*args, **options)
            poses = (course.translation_mm, course.rotation_deg)
            last = [np.repeat(values[-1:], len(course), axis=0) for values in poses]
            return replace(course, translation_mm=last[0], rotation_deg=last[1])

        monkeypatch.setattr(module, name, frozen)


def told_apart(heads, make) -> float:
    """AUC on unseen heads of a tiny network that tells ``make(head, True, rng)`` from ``False``."""
    copies = []
    for number, head in enumerate(heads):
        for draw in range(N_DRAWS):
            pair = [
                make(head, bool(label), np.random.default_rng([number, draw, label]))
                for label in (0, 1)
            ]
            copies.append(torch.stack(pair))
    x = torch.stack(copies)  # (pairs, 2, I, J, K)
    x = (x - x.mean((2, 3, 4), keepdim=True)) / x.std((2, 3, 4), keepdim=True)
    n_train = N_DRAWS * (N_HEADS // 2)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 1),
        )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(STEPS):
        batch = torch.randperm(n_train, generator=generator)[:8]
        logit = network(x[batch].flatten(0, 1)[:, None]).view(-1, 2)
        loss = nn.functional.softplus(logit[:, 0]) + nn.functional.softplus(-logit[:, 1])
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        unseen = network(x[n_train:].flatten(0, 1)[:, None]).flatten().numpy()
    return auc(np.tile([0, 1], len(unseen) // 2), unseen)
