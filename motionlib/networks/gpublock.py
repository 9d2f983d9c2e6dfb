"""Tensors on a GPU go in; what `gpupool`'s kernels make of them comes out, differentiable."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch.autograd.function import once_differentiable

from motionlib.networks import gpupool

HOW = {"num_warps": 4, "num_stages": 2}  # of the first block's programs
MOST = 2**31  # values of a volume's batch that a kernel can count


@cache
def works(device: torch.device) -> bool:
    """Whether a kernel runs on a GPU: Triton asks for a C compiler at its first launch."""
    x = torch.ones(2, 2, 2, device=device)
    out = torch.empty(4, 4, 4, device=device, dtype=torch.bfloat16)
    try:
        with torch.cuda.device_of(x):
            gpupool.padded[(1,)](x, out, out.numel(), 2, 2, 2, BLOCK=64)
        return float(out.sum()) == x.numel()
    except Exception as error:
        warnings.warn(
            f"Triton cannot build kernels here ({type(error).__name__}: {error}); training goes on "
            "with torch's own operations, several times slower. Install a C compiler to mend it.",
            stacklevel=2,
        )
        return False


def serves(x: torch.Tensor, norm) -> bool:
    """Whether these kernels can do a training step on `x` (B, C, I, J, K) before `norm`."""
    channels = norm.num_features
    return (
        norm.training
        and norm.momentum is not None
        and 8 <= channels <= 1024
        and channels & (channels - 1) == 0
        and x.numel() // x.shape[1] * channels < MOST
        and x.numel() > x.shape[1]
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and torch.cuda.get_device_capability(x.device)[0] >= 8
        and works(x.device)
    )


def _run(kernel, programs: int, *args, **options) -> None:
    """Launch a kernel on the device of its first tensor, which need not be the current one."""
    with torch.cuda.device_of(args[0]):
        kernel[(programs,)](*args, **options)


def _launch(n: int, block: int) -> tuple[int, int]:
    """Programs of a summing kernel, and the turns that each takes."""
    blocks = -(-n // block)
    turns = -(-blocks // gpupool.PROGRAMS)
    return -(-blocks // turns), turns


def _rows(channels: int) -> int:
    """Rows of a tile of 2,048 values."""
    return 2048 // channels


def _last(x: torch.Tensor) -> torch.Tensor:
    """View (B, C, I, J, K) as contiguous (B, I, J, K, C)."""
    return x.detach().permute(0, 2, 3, 4, 1).contiguous()


def _track(norm, mean, variance, count: int) -> None:
    """Move the running statistics, as BatchNorm3d does."""
    with torch.no_grad():
        norm.running_mean.lerp_(mean.float(), norm.momentum)
        norm.running_var.lerp_((variance * (count / (count - 1))).float(), norm.momentum)
        norm.num_batches_tracked += 1


def _two(out: torch.Tensor) -> torch.Tensor:
    """Add up partial sums (programs, 2, C) in double precision, in their order."""
    return out.sum(0, dtype=torch.float64)


def _affine(weight, bias, mean, variance, eps: float):
    """Scale, shift and inverse deviation of a normalisation, in double precision."""
    inverse = torch.rsqrt(variance + eps)
    scale = weight.detach().double() * inverse
    return scale, bias.detach().double() - mean * scale, inverse


def _coefficients(gradient, where, picked, scale, mean, inverse, count: int):
    """Sum the gradient; also give slope and base of the convolution's own gradient."""
    channels = gradient.shape[-1]
    n, block = gradient.numel() // channels, _rows(channels)
    programs, turns = _launch(n, block)
    out = torch.empty(programs, 2, channels, device=gradient.device)
    _run(
        gpupool.sums,
        programs,
        *(gradient, where, picked, mean.float(), inverse.float(), out, n, turns),
        C=channels,
        BLOCK=block,
    )
    summed, projected = _two(out)
    slope = -scale * inverse * projected / count
    base = -scale * summed / count - slope * mean
    return summed, projected, slope, base


class NormPoolGpu(torch.autograd.Function):
    """Normalise, pool and rectify a bf16 map (B, C, I, J, K) by its own moments."""

    @staticmethod
    def forward(ctx, x, weight, bias, norm):
        """Give the pooled map and move the running statistics of `norm`."""
        source = _last(x)
        batch, *sizes, channels = source.shape
        count, block = source.numel() // channels, _rows(channels)
        programs, turns = _launch(count, block)
        out = torch.empty(programs, 2, channels, device=x.device)
        _run(gpupool.moments, programs, source, out, count, turns, C=channels, BLOCK=block)
        one, two = _two(out) / count
        mean, variance = one + source.reshape(-1, channels)[0].double(), two - one * one
        _track(norm, mean, variance, count)
        scale, shift, inverse = _affine(weight, bias, mean, variance, norm.eps)
        shape = (batch, *(-(-n // 2) for n in sizes), channels)
        pooled, picked = (source.new_empty(shape) for _ in range(2))
        where = torch.empty(shape, dtype=torch.uint8, device=x.device)
        n, cells = pooled.numel() // channels, _rows(channels) // 2
        _run(
            gpupool.pool,
            -(-n // cells),
            *(source, scale.float(), shift.float(), pooled, where, picked, n, *sizes),
            C=channels,
            BLOCK=cells,
        )
        ctx.save_for_backward(source, where, picked, scale, mean, inverse)
        return pooled.permute(0, 4, 1, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Give the gradients of the map, the weight and the bias."""
        source, where, picked, scale, mean, inverse = ctx.saved_tensors
        _, *sizes, channels = source.shape
        gradient = _last(gradient)
        summed, projected, slope, base = _coefficients(
            gradient, where, picked, scale, mean, inverse, source.numel() // channels
        )
        given = None
        if ctx.needs_input_grad[0]:
            given = torch.empty_like(source)
            n, cells = gradient.numel() // channels, _rows(channels) // 2
            _run(
                gpupool.spread,
                -(-n // cells),
                *(source, gradient, where, scale.float(), slope.float(), base.float(), given, n),
                *sizes,
                C=channels,
                BLOCK=cells,
            )
            given = given.permute(0, 4, 1, 2, 3)
        return given, projected.float(), summed.float(), None


def _taps() -> torch.Tensor:
    """Which of the 64 neighbours of a pooled voxel each of 27 taps of each of 8 voxels is."""
    p, t = torch.arange(8)[:, None], torch.arange(27)[None, :]
    i, j, k = p // 4 + t // 9, p // 2 % 2 + t // 3 % 3, p % 2 + t % 3
    return (i * 4 + j) * 4 + k


TAPS = _taps()  # (8, 27)


class FirstBlockGpu(torch.autograd.Function):
    """Convolve volumes (B, 1, I, J, K), normalise, pool and rectify; the convolution is not kept.

    The gradient of the convolution's bias is exactly zero: the normalisation takes the bias out.
    """

    @staticmethod
    def forward(ctx, x, kernel, kernel_bias, weight, bias, norm):
        """Give the pooled map and move the running statistics of `norm`."""
        given = x.detach().contiguous()
        batch, _, *sizes = given.shape
        channels, count = kernel.shape[0], given.numel()
        taps = TAPS.to(x.device)
        dense = torch.zeros(8, channels, 64, device=x.device)
        values = kernel.detach().float().reshape(1, channels, 27).expand(8, -1, -1)
        dense.scatter_(2, taps[:, None, :].expand(-1, channels, -1), values)
        dense = dense.reshape(8 * channels, 64).bfloat16()
        halves = [-(-n // 2) for n in sizes]
        n = batch * halves[0] * halves[1] * halves[2]
        volumes = torch.empty(
            batch, *(2 * half + 2 for half in halves), dtype=torch.bfloat16, device=x.device
        )
        blocks, cells = -(-volumes.numel() // 1024), volumes.numel()
        _run(gpupool.padded, blocks, given, volumes, cells, *sizes, BLOCK=1024)
        grid = {"C": channels, "BLOCK": gpupool.CELLS} | HOW
        programs, turns = _launch(n, gpupool.CELLS)
        out = torch.empty(programs, 2, 8, channels, device=x.device)
        _run(gpupool.first_moments, programs, volumes, dense, out, n, *sizes, turns, **grid)
        one, two = _two(out).sum(1) / count
        mean, variance = one, two - one * one  # of the convolution without its bias
        added = 0.0 if kernel_bias is None else kernel_bias.detach().double()
        _track(norm, mean + added, variance, count)
        scale, shift, inverse = _affine(weight, bias, mean, variance, norm.eps)
        shape = (batch, *halves, channels)
        pooled, picked = (
            torch.empty(shape, dtype=torch.bfloat16, device=x.device) for _ in range(2)
        )
        where = torch.empty(shape, dtype=torch.uint8, device=x.device)
        _run(
            gpupool.first_pool,
            -(-n // gpupool.CELLS),
            *(volumes, dense, scale.float(), shift.float(), pooled, where, picked, n, *sizes),
            **grid,
        )
        ctx.save_for_backward(volumes, dense, where, picked, scale, mean, inverse)
        ctx.biased, ctx.sizes, ctx.count = kernel_bias is not None, sizes, count
        return pooled.permute(0, 4, 1, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Give the gradients of the convolution's and the normalisation's parameters."""
        volumes, dense, where, picked, scale, mean, inverse = ctx.saved_tensors
        sizes, channels = ctx.sizes, dense.shape[0] // 8
        gradient = _last(gradient)
        summed, projected, slope, base = _coefficients(
            gradient, where, picked, scale, mean, inverse, ctx.count
        )
        n = gradient.numel() // channels
        programs, turns = _launch(n, gpupool.CELLS)
        out = torch.empty(programs, 64, 8, channels, device=gradient.device)
        _run(
            gpupool.first_gradient,
            programs,
            *(volumes, dense, gradient, where, scale.float(), slope.float(), base.float()),
            *(out, n, *sizes, turns),
            C=channels,
            BLOCK=gpupool.CELLS,
            **HOW,
        )
        found = out.sum(0, dtype=torch.float64)  # (64, 8, C)
        taps = TAPS.to(gradient.device)
        each = found.gather(0, taps.T[:, :, None].expand(-1, -1, channels))  # (27, 8, C)
        kernel = each.sum(1).T.reshape(channels, 1, 3, 3, 3).float()
        nothing = torch.zeros(channels, device=gradient.device) if ctx.biased else None
        return None, kernel, nothing, projected.float(), summed.float(), None
