"""The four networks: as published at the paper's grid, usable on small ones."""

import sys
from types import SimpleNamespace

import pytest
import torch

from motionlib.networks import NETWORKS, PAPER_SHAPE, build_network, pooling
from motionlib.networks.pooling import FirstBlock, NormPool, padded_max_pool
from motionlib.networks.resnet3d import Shortcut
from motionlib.networks.vit3d import ViT3D, default_patch

SMALL = (24, 28, 24)
PARAMETERS = {  # the published classes at 169 x 208 x 179
    "Conv5FC3": 42_293_972,
    "ResNet3D": 3_517_314,
    "SECNN": 3_523_049,
    "ViT3D": 55_499_778,
}
MAPS = {  # grid after each block at 169 x 208 x 179
    "Conv5FC3": [(85, 104, 90), (43, 52, 45), (22, 26, 23), (11, 13, 12), (6, 7, 6)],
    "ResNet3D": [(84, 103, 89), (41, 51, 44), (20, 25, 21), (9, 12, 10), (4, 5, 4)],
    "SECNN": [(84, 103, 89), (41, 51, 44), (20, 25, 21), (9, 12, 10), (4, 5, 4)],
}


def on_paper(name, **options):
    """A network at the paper's grid that occupies no memory."""
    with torch.device("meta"):
        return build_network(name, PAPER_SHAPE, **options)


def count(network) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


class TestPublishedNetworks:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_parameters_are_the_published_ones(self, name):
        assert count(on_paper(name)) == PARAMETERS[name]

    @pytest.mark.parametrize("name", NETWORKS)
    def test_paper_grid_gives_two_logits(self, name):
        assert on_paper(name)(torch.empty(3, 1, *PAPER_SHAPE, device="meta")).shape == (3, 2)

    @pytest.mark.parametrize("name", MAPS)
    def test_blocks_halve_the_grid_as_published(self, name):
        x, grids = torch.empty(1, 1, *PAPER_SHAPE, device="meta"), []
        for block, module in on_paper(name).named_children():
            x = module(x)
            if block.startswith("block"):
                grids.append(tuple(x.shape[2:]))
        assert grids == MAPS[name]

    @pytest.mark.parametrize(("name", "size"), [("Conv5FC3", 294_720), ("ResNet3D", 895_104)])
    def test_convolutional_part_has_the_published_size(self, name, size):
        blocks = [m for n, m in on_paper(name).named_children() if n.startswith("block")]
        assert sum(count(block) for block in blocks) == size

    @pytest.mark.parametrize("options", [{"members": 10**30}, {"channels": [4, 10**30]}])
    def test_a_description_cannot_ask_for_endless_building(self, options):
        with pytest.raises(ValueError, match=r"of Slices holds a number above 4096\.$"):
            build_network("Slices", (24, 24, 24), **options)

    def test_published_dropouts_are_the_defaults(self):
        dropouts = {
            name: max(m.p for m in on_paper(name).modules() if isinstance(m, torch.nn.Dropout))
            for name in NETWORKS
        }
        assert dropouts == {"Conv5FC3": 0.0, "ResNet3D": 0.8, "SECNN": 0.5, "ViT3D": 0.0}

    def test_second_patch_variant_of_the_transformer_has_36_tokens(self):
        network = on_paper("ViT3D", patch=(56, 52, 59))
        assert network.embedding.positions.shape == (1, 37, 1024)
        assert count(network) == 226_356_226

    def test_attention_is_scaled_by_the_width_of_a_head(self):
        layer = ViT3D((8, 8, 8), patch=(4, 4, 4), dim=64).block1
        x = torch.randn(2, 9, 64)
        q, k, v = layer.to_qkv(layer.norm1(x)).chunk(3, -1)
        by_hand = (q @ k.transpose(1, 2) / 8).softmax(-1) @ v
        with_shortcut = x + layer.to_out(by_hand)
        expected = with_shortcut + layer.mlp(layer.norm2(with_shortcut))
        assert torch.allclose(layer(x), expected, atol=1e-5)

    def test_shortcut_has_no_bias_and_gates_have_ratio_eight(self):
        block = on_paper("SECNN").block5[0]
        assert block.shortcut.bias is None
        assert block.attention.gates[0].weight.shape == (16, 128)

    @pytest.mark.parametrize("channels", [1, 8])
    def test_shortcut_is_a_convolution_that_keeps_channels_last(self, channels):
        torch.manual_seed(1)
        x = torch.randn(3, channels, 5, 6, 7).to(memory_format=torch.channels_last_3d)
        ours = Shortcut(channels, 16, 1, bias=False)
        plain = torch.nn.Conv3d(channels, 16, 1, bias=False)
        plain.load_state_dict(ours.state_dict())
        outputs, gradients = [], []
        for module in (ours, plain):
            leaf = x.clone().requires_grad_()
            out = module(leaf)
            (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
            outputs.append(out)
            gradients.append((leaf.grad, module.weight.grad))
        assert torch.allclose(*outputs, atol=1e-5)
        assert outputs[0].is_contiguous(memory_format=torch.channels_last_3d)
        for one, other in zip(*gradients, strict=True):
            assert torch.allclose(one, other, atol=1e-4)


class Plain(torch.nn.BatchNorm3d):
    """What `NormPool` does, in torch's operations and in the published order."""

    def forward(self, x):
        return padded_max_pool(torch.nn.functional.relu(super().forward(x)))


def both(x, training: bool, channels: int):
    """Outputs, gradients and buffers of `NormPool` and of the plain chain in double precision."""
    results, weight, bias = [], torch.randn(channels), torch.randn(channels)
    for module in (NormPool(channels), Plain(channels).double()):
        with torch.no_grad():
            module.weight.copy_(weight)
            module.bias.copy_(bias)
            module.running_mean.fill_(0.5)
        leaf = x.clone().to(module.weight.dtype).requires_grad_()
        out = module.train(training)(leaf)
        (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        gradients = (leaf.grad, module.weight.grad, module.bias.grad)
        results.append([out, *gradients, module.running_mean, module.running_var])
    return results


class TestNormPool:
    def test_odd_axes_are_padded_at_the_front(self):
        x = torch.arange(1.0, 6.0).reshape(1, 1, 5, 1, 1).expand(1, 1, 5, 2, 2)
        assert padded_max_pool(x)[0, 0, :, 0, 0].tolist() == [1, 3, 5]

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("shape", [(4, 6, 8), (5, 7, 3), (5, 4, 1)])
    def test_agrees_with_the_published_chain_in_double_precision(self, training, shape):
        torch.manual_seed(1)
        for ours, plain in zip(*both(torch.randn(3, 8, *shape) + 3, training, 8), strict=True):
            assert torch.allclose(ours.double(), plain.double(), rtol=1e-4, atol=1e-4)

    def test_prediction_without_gradients_gives_the_same(self):
        module = NormPool(4).eval()
        x = torch.randn(2, 4, 5, 6, 7)
        with torch.inference_mode():
            alone = module(x)
        assert torch.allclose(alone, module(x), atol=1e-6)

    def test_memory_layout_does_not_change_the_bits(self):
        x = torch.randn(2, 8, 5, 6, 7)
        other = x.contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(NormPool(8)(x), NormPool(8)(other))

    def test_input_that_is_not_finite_is_not_hidden(self):
        x = torch.randn(2, 4, 4, 4, 4)
        x[0, 0, 0, 0, 0] = float("nan")
        assert NormPool(4)(x).isnan().any()

    def test_tensors_are_named_as_those_of_batch_normalisation(self):
        assert NormPool(3).state_dict().keys() == torch.nn.BatchNorm3d(3).state_dict().keys()


class TestFirstBlock:
    """One channel convolved, normalised and pooled in one go, beside torch in double precision."""

    @pytest.fixture
    def block(self):
        torch.manual_seed(2)
        block = FirstBlock(torch.nn.Conv3d(1, 8, 3, padding=1), NormPool(8))
        torch.nn.init.normal_(block[1].weight)
        torch.nn.init.normal_(block[1].bias)
        return block

    @pytest.fixture
    def plain(self, block):
        plain = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3, padding=1), Plain(8))
        plain.load_state_dict(block.state_dict())
        return plain.double()

    @pytest.mark.parametrize("shape", [(4, 6, 8), (5, 7, 3), (2, 2, 2), (3, 16, 33)])
    def test_training_agrees_and_so_do_gradients_and_statistics(self, block, plain, shape):
        x = torch.randn(3, 1, *shape) + 0.5
        results = []
        for module in (block, plain):
            out = module(x.to(module[0].weight.dtype))
            (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
            gradients = [p.grad for p in module.parameters()]
            results.append([out, *gradients, module[1].running_mean, module[1].running_var])
        for ours, theirs in zip(*results, strict=True):
            assert torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-4)
        assert results[0][0].is_contiguous(memory_format=torch.channels_last_3d)

    def test_prediction_agrees(self, block, plain):
        x = torch.randn(2, 1, 5, 8, 7)
        with torch.inference_mode():
            ours, theirs = block.eval()(x), plain.eval()(x.double())
        assert torch.allclose(ours.double(), theirs, atol=1e-5)

    def test_the_convolution_is_not_stored(self, block, monkeypatch):
        monkeypatch.setattr(block[0], "forward", None)
        block(torch.randn(2, 1, 4, 4, 4)).sum().backward()

    @pytest.mark.parametrize("shape", [(1, 4, 4), (4, 4, 1)])
    def test_a_flat_axis_is_left_to_torch(self, block, plain, shape):
        x = torch.randn(2, 1, *shape)
        assert torch.allclose(block(x).double(), plain(x.double()), atol=1e-4)

    def test_a_wanted_gradient_of_the_input_is_given(self, block):
        x = torch.randn(2, 1, 4, 4, 4, requires_grad=True)
        block(x).sum().backward()
        assert x.grad.abs().max() > 0

    def test_input_that_is_not_finite_is_not_hidden(self, block):
        x = torch.randn(2, 1, 4, 4, 4)
        x[0, 0, 1, 1, 1] = float("nan")
        assert block(x).isnan().any()


class TestSmallGrids:
    @pytest.mark.parametrize("name", NETWORKS)
    @pytest.mark.parametrize("shape", [(5, 4, 3), SMALL, (43, 52, 45)])
    def test_any_grid_gives_two_logits(self, name, shape):
        network = build_network(name, shape).eval()
        assert network(torch.randn(1, 1, *shape)).shape == (1, 2)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_gradient_reaches_every_parameter(self, name):
        # several starts: the one bottleneck unit of SECNN's first gate may begin switched off
        reached = set()
        for seed in range(4):
            torch.manual_seed(seed)
            network = build_network(name, SMALL, dropout=0.0)
            network(torch.randn(4, 1, *SMALL)).square().sum().backward()
            tensors = network.named_parameters()
            reached |= {n for n, p in tensors if p.grad is not None and p.grad.any()}
        assert reached == {n for n, _ in network.named_parameters()}

    @pytest.mark.parametrize("name", NETWORKS)
    def test_half_precision_agrees_within_three_hundredths(self, name):
        torch.manual_seed(0)
        network = build_network(name, SMALL).eval()
        x = torch.randn(4, 1, *SMALL)
        with torch.inference_mode():
            full = network(x).softmax(1)
            with torch.autocast("cpu", torch.bfloat16):
                half = network(x).float().softmax(1)
        assert (full - half).abs().max() < 0.03

    def test_transformer_keeps_at_most_200_tokens_on_small_grids(self):
        assert default_patch(PAPER_SHAPE) == (13, 13, 16)
        assert default_patch((43, 52, 45)) == (8, 8, 8)
        assert build_network("ViT3D", (43, 52, 45)).embedding.positions.shape == (1, 151, 256)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_more_classes_are_possible(self, name):
        assert build_network(name, SMALL, n_classes=3)(torch.randn(2, 1, *SMALL)).shape == (2, 3)


class TestRefusals:
    def test_unknown_network_is_named(self):
        with pytest.raises(ValueError, match="'VGG' is not known; use one of Conv5FC3"):
            build_network("VGG", SMALL)

    def test_two_axes_are_refused(self):
        with pytest.raises(ValueError, match="not three positive sizes"):
            build_network("Conv5FC3", (24, 28))

    def test_patch_larger_than_the_grid_is_refused(self):
        with pytest.raises(ValueError, match="holds no patch of"):
            build_network("ViT3D", SMALL, patch=(32, 32, 32))

    def test_foreign_option_is_refused(self):
        with pytest.raises(ValueError, match="ResNet3D does not take these options"):
            build_network("ResNet3D", SMALL, patch=(8, 8, 8))

    def test_impossible_dropout_is_refused(self):
        with pytest.raises(ValueError, match="not a probability"):
            build_network("SECNN", SMALL, dropout=1.5)


class TestGpuDispatch:
    """The GPU's kernels are asked where they serve; a GPU is pretended."""

    @pytest.fixture
    def kernels(self, monkeypatch):
        def taken(name):
            return SimpleNamespace(apply=lambda *args: name)

        stand_in = SimpleNamespace(
            serves=lambda x, norm: True,
            FirstBlockGpu=taken("first block"),
            NormPoolGpu=taken("pool"),
        )
        monkeypatch.setitem(sys.modules, "motionlib.networks.fused_gpu", stand_in)
        monkeypatch.setattr(pooling, "kernels_at_hand", lambda: True)
        return stand_in

    @pytest.fixture
    def x(self):
        return SimpleNamespace(
            is_cuda=True,
            requires_grad=False,
            dtype=torch.bfloat16,
            device=torch.device("cuda"),
        )

    def test_the_first_block_and_the_pools_go_to_them(self, kernels, x):
        network = build_network("Conv5FC3", (8, 8, 8))
        assert network.block1(x) == "first block"
        assert network.block2[1](x) == "pool"

    def test_a_wanted_gradient_of_the_input_does_not(self, kernels, x):
        x.requires_grad = True
        with pytest.raises(TypeError):  # torch's own convolution got the stand-in
            build_network("Conv5FC3", (8, 8, 8)).block1(x)

    def test_without_triton_torch_does_it(self, kernels, x, monkeypatch):
        monkeypatch.setattr(pooling, "kernels_at_hand", lambda: False)
        with pytest.raises(TypeError):
            build_network("Conv5FC3", (8, 8, 8)).block1(x)
