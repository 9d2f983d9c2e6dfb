"""Slices: blind to level and scale, members averaged, planes of the head, one plane at a time."""

import numpy as np
import pytest
import torch

from motionlib.networks import build_network
from motionlib.networks.slices import (
    PLANES,
    REACH,
    Cut,
    SliceNet,
    joined,
    plane_range,
    scaled,
)

SHAPE = (40, 48, 44)
CHANNELS = (4, 4, 8)


@pytest.fixture(scope="module")
def head():
    """A bright ball with texture in noisy air."""
    rng = np.random.default_rng(0)
    x = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    ball = np.sqrt((x**2).sum(axis=0)) < 16
    volume = ball * rng.uniform(0.6, 1.4, SHAPE) + rng.uniform(0, 0.05, SHAPE)
    return torch.from_numpy(volume.astype(np.float32))


@pytest.fixture(scope="module")
def members():
    torch.manual_seed(0)
    nets = [SliceNet(CHANNELS).eval() for _ in range(3)]
    for net in nets:  # running statistics of a trained network
        for block in net.blocks:
            for layer in block:
                if hasattr(layer, "running_mean"):
                    layer.running_mean.normal_()
    return nets


def score(network, volume):
    with torch.inference_mode():
        return network(volume[None, None])[0]


def test_members_side_by_side_give_the_mean_of_their_log_odds(head, members):
    network = joined(SHAPE, members)
    with torch.inference_mode():
        cuts = Cut(PLANES)(head[None, None])
        alone = [torch.stack([net(c).mean() for c in cuts]).mean() for net in members]
    found = score(network, head)
    assert found[0] == 0
    assert found[1].item() == pytest.approx(torch.stack(alone).mean().item(), abs=1e-5)
    assert torch.stack(alone).std() > 1e-3


def test_neither_scale_nor_z_score_matters(head, members):
    network = joined(SHAPE, members)
    want = score(network, head)[1].item()
    for changed in (head * 700, (head - head.mean()) / head.std()):
        assert score(network, changed)[1].item() == pytest.approx(want, abs=1e-3)


def test_scans_of_a_batch_do_not_see_each_other(head, members):
    network = joined(SHAPE, members)
    other = head.flip(0) ** 2
    with torch.inference_mode():
        both = network(torch.stack([head, other])[:, None])[:, 1]
    for volume, found in zip((head, other), both, strict=True):
        assert score(network, volume)[1].item() == pytest.approx(found.item(), abs=1e-5)


def test_planes_are_of_the_head_and_its_level_is_one(head):
    level = scaled(head * 50 + 3)
    assert float(level[level > 0.3].median()) == pytest.approx(1, abs=0.05)
    assert float(level.min()) == 0
    for axis, middle in enumerate((np.array(SHAPE) - 1) / 2):
        first, last = plane_range(level, axis)
        assert middle - 16 < first < last < middle + 16
        assert last - first == pytest.approx((REACH[1] - REACH[0]) * 30, abs=2)
    cuts = Cut(PLANES)(head[None, None])
    assert [tuple(c.shape) for c in cuts] == [(8, 1, 48, 48), (8, 1, 40, 48), (8, 1, 40, 48)]


def test_a_grid_without_a_head_is_scored_all_the_same(members):
    assert torch.isfinite(score(joined(SHAPE, members), torch.zeros(SHAPE))).all()


def test_the_training_loop_can_lay_it_out_and_train_its_last_block(head):
    network = build_network("Slices", SHAPE, members=2, channels=CHANNELS)
    network.to(memory_format=torch.channels_last_3d).eval()
    network.block1.requires_grad_(False)
    network(head[None, None]).sum().backward()
    moved = [name for name, p in network.named_parameters() if p.grad is not None]
    assert moved == ["fc1.1.weight", "fc1.1.bias"]
    assert [name for name, _ in network.named_children()] == ["cut", "block1", "fc1"]


def test_a_grid_of_a_few_voxels_is_refused():
    with pytest.raises(ValueError, match="needs 8 voxels"):
        build_network("Slices", (40, 6, 40))
