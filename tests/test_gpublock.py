"""The first block and the pools on a GPU, against double precision; interpreted where none is."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with CUDA builds of torch only")

COMPARE = """
import sys, torch, triton.language as tl
from motionlib.networks import gpupool
from motionlib.networks.gpublock import FirstBlockGpu, NormPoolGpu
from motionlib.networks.normpool import NormPool, padded_max_pool

device, shape = sys.argv[1], tuple(int(n) for n in sys.argv[2:])
if device == "cpu":
    gpupool.HALF = tl.constexpr(tl.float32)  # the interpreter has no products of bf16
torch.manual_seed(20)

def norms(channels):
    norm = NormPool(channels).to(device)
    norm.weight.data.uniform_(-0.5, 1.5)
    norm.bias.data.uniform_(-0.3, 0.3)
    exact = torch.nn.BatchNorm3d(channels).double().to(device)
    exact.load_state_dict(norm.state_dict())
    return norm, exact

def show(name, found, exact):
    print(name, float((found.double() - exact).norm() / exact.norm()))

def compare(name, found, exact, norm, exact_norm, given, exact_given):
    slope = torch.randn_like(exact).bfloat16()
    exact.backward(slope.double())
    found.backward(slope)
    show(name + " output", found, exact.detach())
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
own = conv.weight, conv.bias, norm.weight, norm.bias
compare("first", FirstBlockGpu.apply(x, *own, norm), padded_max_pool(torch.relu(exact(y))),
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


@pytest.mark.parametrize("shape", [(9, 10, 7), (8, 6, 5)], ids=["odd", "even"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_kernels_agree_with_double_precision(device, shape):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    interpreted = {"TRITON_INTERPRET": "1"} if device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, device, *map(str, shape)],
        env=os.environ | interpreted,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = {line.rpartition(" ")[0]: float(line.split()[-1]) for line in done.stdout.splitlines()}
    assert len(found) == 12
    assert {name: e for name, e in found.items() if not e < 5e-3} == {}
    tight = ("mean", "variance")
    assert all(e < 1e-5 for name, e in found.items() if name.endswith(tight))
