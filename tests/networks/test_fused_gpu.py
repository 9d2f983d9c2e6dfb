"""The first block and the pools on a GPU, against double precision.

Where there is no GPU but Triton is installed (CUDA builds of torch bring it along), Triton's
interpreter runs the kernels, with products of float32 in place of bf16.
"""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with CUDA builds of torch only")

COMPARE = """
import sys, torch, triton.language as tl
from motionlib.networks import fused_gpu
from motionlib.networks.fused_gpu import FirstBlockGpu, NormPoolGpu
from motionlib.networks.pooling import NormPool, padded_max_pool

device, shape = sys.argv[1], tuple(int(n) for n in sys.argv[3:])
if device == "cpu":
    fused_gpu.HALF = tl.constexpr(tl.float32)  # the interpreter has no products of bf16
fused_gpu.PROGRAMS = int(sys.argv[2])  # few: each takes many turns, as at the paper's grid
torch.manual_seed(20)

def norms(channels):
    norm = NormPool(channels).to(device)
    norm.weight.data.uniform_(-0.5, 1.5)
    norm.bias.data.uniform_(-0.3, 0.3)
    exact = torch.nn.BatchNorm3d(channels).double().to(device)
    exact.load_state_dict(norm.state_dict())
    return norm, exact

def show(name, output, exact):
    print(name, float((output.double() - exact).norm() / exact.norm()))

def compare(name, output, exact, norm, exact_norm, given, exact_given):
    slope = torch.randn_like(exact).bfloat16()
    exact.backward(slope.double())
    output.backward(slope)
    show(name + " output", output, exact.detach())
    show(name + " gradient", given.grad, exact_given.grad)
    show(name + " weight", norm.weight.grad, exact_norm.weight.grad)
    show(name + " bias", norm.bias.grad, exact_norm.bias.grad)
    show(name + " mean", norm.running_mean, exact_norm.running_mean)
    show(name + " variance", norm.running_var, exact_norm.running_var)

norm, exact = norms(8)
conv = torch.nn.Conv3d(1, 8, 3, padding=1).to(device)
conv.weight.data = conv.weight.data.bfloat16().float()
x = torch.randn(2, 1, *shape, device=device).bfloat16().float()
x[:, :, :3] = -0.75  # air
kernel, shift = (p.detach().double().requires_grad_() for p in (conv.weight, conv.bias))
y = torch.nn.functional.conv3d(x.double(), kernel, shift, padding=1)
parameters = conv.weight, conv.bias, norm.weight, norm.bias
compare("first", FirstBlockGpu.apply(x, *parameters, norm), padded_max_pool(torch.relu(exact(y))),
        norm, exact, conv.weight, kernel)
assert not conv.bias.grad.any()

norm, exact = norms(16)
x = torch.randn(2, 16, *shape, device=device).bfloat16()
x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
wide = x.detach().double().requires_grad_()
compare("pool", NormPoolGpu.apply(x, norm.weight, norm.bias, norm),
        padded_max_pool(torch.relu(exact(wide))), norm, exact, x, wide)

lost = x.detach().clone()
lost[0, 0, 0, 0, 0] = float("nan")
assert NormPoolGpu.apply(lost, norm.weight, norm.bias, norm)[:, 0].isnan().all()
"""


@pytest.mark.parametrize("programs", [2, 4096])
@pytest.mark.parametrize("shape", [(9, 10, 7), (8, 6, 5)], ids=["odd", "even"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_kernels_agree_with_double_precision(device, shape, programs):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    interpreted = {"TRITON_INTERPRET": "1"} if device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, device, str(programs), *map(str, shape)],
        env=os.environ | interpreted,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    errors = {line.rpartition(" ")[0]: float(line.split()[-1]) for line in done.stdout.splitlines()}
    assert len(errors) == 12
    assert {name: e for name, e in errors.items() if not e < 5e-3} == {}
    tight = ("mean", "variance")
    assert all(e < 1e-5 for name, e in errors.items() if name.endswith(tight))


class TestServes:
    """Which steps the kernels take; a GPU is pretended."""

    @pytest.fixture
    def kernels(self, monkeypatch):
        from motionlib.networks import fused_gpu

        monkeypatch.setattr(fused_gpu, "works", lambda device: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
        return fused_gpu

    @pytest.fixture
    def x(self):
        return torch.zeros(2, 8, 4, 4, 4)

    def test_a_training_step_in_bf16(self, kernels, x):
        assert kernels.serves(x, torch.nn.BatchNorm3d(8))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("works", lambda device: False),
            ("torch.cuda.get_device_capability", lambda device: (7, 5)),
            ("torch.is_autocast_enabled", lambda kind: False),
            ("torch.get_autocast_dtype", lambda kind: torch.float16),
            ("MOST", 100),
        ],
    )
    def test_not_where_a_condition_fails(self, kernels, x, monkeypatch, name, value):
        where = f"motionlib.networks.fused_gpu.{name}" if "." not in name else name
        monkeypatch.setattr(where, value)
        assert not kernels.serves(x, torch.nn.BatchNorm3d(8))

    def test_not_with_other_channels_or_fixed_statistics(self, kernels, x):
        assert not kernels.serves(x, torch.nn.BatchNorm3d(12))
        assert not kernels.serves(x, torch.nn.BatchNorm3d(8).eval())
        assert not kernels.serves(x, torch.nn.BatchNorm3d(8, momentum=None))

    def test_a_missing_compiler_is_said_once_and_torch_goes_on(self, monkeypatch):
        from motionlib.networks import fused_gpu

        class Broken:
            def __getitem__(self, grid):
                raise RuntimeError("Failed to find C compiler")

        monkeypatch.setattr(fused_gpu, "_padded", Broken())
        fused_gpu.works.cache_clear()
        with pytest.warns(UserWarning, match="Failed to find C compiler.*torch's own operations"):
            assert not fused_gpu.works(torch.device("cpu"))
        assert not fused_gpu.works(torch.device("cpu"))
        fused_gpu.works.cache_clear()
