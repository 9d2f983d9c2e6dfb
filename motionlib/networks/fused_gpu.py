"""Tensors on a GPU go in; what `gpupool`'s kernels make of them comes out, differentiable."""

from __future__ import annotations

import warnings
from functools import cache

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

HOW = {"num_warps": 4, "num_stages": 2}  # of the first block's programs
MOST = 2**31  # values of a volume's batch that a kernel can count
NOWHERE = tl.constexpr(255)  # the maximum was a padding zero, or not positive
HALF = tl.constexpr(tl.bfloat16)  # what matrix products are fed with
CELLS = 32  # pooled voxels a program takes at a time in the first block
PROGRAMS = 4096  # at most, of a kernel that sums; each leaves one partial sum


@cache
def works(device: torch.device) -> bool:
    """Whether a kernel runs on a GPU: Triton asks for a C compiler at its first launch."""
    x = torch.ones(2, 2, 2, device=device)
    out = torch.empty(4, 4, 4, device=device, dtype=torch.bfloat16)
    try:
        with torch.cuda.device_of(x):
            padded[(1,)](x, out, out.numel(), 2, 2, 2, BLOCK=64)
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
    turns = -(-blocks // PROGRAMS)
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
        sums,
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
        _run(moments, programs, source, out, count, turns, C=channels, BLOCK=block)
        one, two = _two(out) / count
        mean, variance = one + source.reshape(-1, channels)[0].double(), two - one * one
        _track(norm, mean, variance, count)
        scale, shift, inverse = _affine(weight, bias, mean, variance, norm.eps)
        shape = (batch, *(-(-n // 2) for n in sizes), channels)
        pooled, picked = (source.new_empty(shape) for _ in range(2))
        where = torch.empty(shape, dtype=torch.uint8, device=x.device)
        n, cells = pooled.numel() // channels, _rows(channels) // 2
        _run(
            pool,
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
                spread,
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
        _run(padded, blocks, given, volumes, cells, *sizes, BLOCK=1024)
        grid = {"C": channels, "BLOCK": CELLS} | HOW
        programs, turns = _launch(n, CELLS)
        out = torch.empty(programs, 2, 8, channels, device=x.device)
        _run(first_moments, programs, volumes, dense, out, n, *sizes, turns, **grid)
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
            first_pool,
            -(-n // CELLS),
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
        programs, turns = _launch(n, CELLS)
        out = torch.empty(programs, 64, 8, channels, device=gradient.device)
        _run(
            first_gradient,
            programs,
            *(volumes, dense, gradient, where, scale.float(), slope.float(), base.float()),
            *(out, n, *sizes, turns),
            C=channels,
            BLOCK=CELLS,
            **HOW,
        )
        found = out.sum(0, dtype=torch.float64)  # (64, 8, C)
        taps = TAPS.to(gradient.device)
        each = found.gather(0, taps.T[:, :, None].expand(-1, -1, channels))  # (27, 8, C)
        kernel = each.sum(1).T.reshape(channels, 1, 3, 3, 3).float()
        nothing = torch.zeros(channels, device=gradient.device) if ctx.biased else None
        return None, kernel, nothing, projected.float(), summed.float(), None


@triton.jit
def _corner(cell, ni, nj, nk):
    """Image and first voxel (-1 in the plane of zeros of an odd axis) of pooled voxels."""
    ok, oj, oi = (nk + 1) // 2, (nj + 1) // 2, (ni + 1) // 2
    k = cell % ok * 2 - nk % 2
    j = cell // ok % oj * 2 - nj % 2
    i = cell // (ok * oj) % oi * 2 - ni % 2
    return cell // (ok * oj * oi), i, j, k


@triton.jit
def padded(x, out, n, ni, nj, nk, BLOCK: tl.constexpr):
    """Copy volumes into zeros that reach one voxel beyond every pooled voxel, in bf16."""
    pj, pk = (nj + 1) // 2 * 2 + 2, (nk + 1) // 2 * 2 + 2
    pi = (ni + 1) // 2 * 2 + 2
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    k = place % pk - 1 - nk % 2
    j = place // pk % pj - 1 - nj % 2
    i = place // (pk * pj) % pi - 1 - ni % 2
    inside = (i >= 0) & (i < ni) & (j >= 0) & (j < nj) & (k >= 0) & (k < nk) & (place < n)
    source = ((place // (pk * pj * pi) * ni + i) * nj + j) * nk + k
    value = tl.load(x + source, mask=inside, other=0.0)
    tl.store(out + place, value.to(tl.bfloat16), mask=place < n)


@triton.jit
def _patches(x, cell, n, ni, nj, nk):
    """Load the 64 voxels around pooled voxels from `padded` volumes, (64, BLOCK)."""
    ok, oj, oi = (nk + 1) // 2, (nj + 1) // 2, (ni + 1) // 2
    pj, pk = oj * 2 + 2, ok * 2 + 2
    k, j, i = cell % ok, cell // ok % oj, cell // (ok * oj)  # i counts over all images
    first = ((i * 2 + i // oi * 2) * pj + j * 2) * pk + k * 2
    tap = tl.arange(0, 64)
    step = (tap // 16 * pj + tap // 4 % 4) * pk + tap % 4
    known = tl.broadcast_to((cell < n)[None, :], (64, cell.shape[0]))
    return tl.load(x + (first[None, :] + step[:, None]), mask=known, other=0.0).to(HALF)


@triton.jit
def _there(cell, n, ni, nj, nk, C: tl.constexpr):
    """Which of the eight voxels of each pooled voxel exist, (8 C, BLOCK)."""
    _, i, j, k = _corner(cell, ni, nj, nk)
    p = tl.arange(0, 8 * C) // C
    front = (i[None, :] + (p // 4)[:, None] >= 0) & (j[None, :] + (p // 2 % 2)[:, None] >= 0)
    return front & (k[None, :] + (p % 2)[:, None] >= 0) & (cell < n)[None, :]


@triton.jit
def first_moments(
    x, w, out, n, ni, nj, nk, turns: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Sum a bias-free convolution and its square over voxels: `out` (programs, 2, 8 C)."""
    row, column = tl.arange(0, 8 * C), tl.arange(0, 64)
    weights = tl.load(w + row[:, None] * 64 + column[None, :]).to(HALF)
    one, two = tl.zeros((8 * C, BLOCK), tl.float32), tl.zeros((8 * C, BLOCK), tl.float32)
    for turn in range(turns):
        cell = (tl.program_id(0) * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        y = tl.dot(weights, _patches(x, cell, n, ni, nj, nk))
        y = tl.where(_there(cell, n, ni, nj, nk, C), y, 0.0)
        one += y
        two += y * y
    target = out + tl.program_id(0) * 16 * C + row
    tl.store(target, tl.sum(one, 1))
    tl.store(target + 8 * C, tl.sum(two, 1))


@triton.jit
def first_pool(
    x, w, scale, shift, out, where, picked, n, ni, nj, nk, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Convolve, normalise, pool and rectify: `out`, `where`, `picked` (n, C)."""
    row, column, channel = tl.arange(0, 8 * C), tl.arange(0, 64), tl.arange(0, C)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    weights = tl.load(w + row[:, None] * 64 + column[None, :]).to(HALF)
    y = tl.dot(weights, _patches(x, cell, n, ni, nj, nk))
    z = y * tl.load(scale + row % C)[:, None] + tl.load(shift + row % C)[:, None]
    z = tl.where(_there(cell, n, ni, nj, nk, C), z, float("-inf"))
    best, place = tl.max(tl.reshape(z, (8, C, BLOCK)), 0, return_indices=True)
    chosen = tl.arange(0, 8)[:, None, None] == place[None, :, :]
    raw = tl.sum(tl.where(chosen, tl.reshape(y, (8, C, BLOCK)), 0.0), 0)
    positive = best > 0
    target = cell[None, :] * C + channel[:, None]
    mask = tl.broadcast_to((cell < n)[None, :], (C, BLOCK))
    tl.store(
        out + target, tl.where(positive | (best != best), best, 0.0).to(tl.bfloat16), mask=mask
    )
    tl.store(where + target, tl.where(positive, place, NOWHERE).to(tl.uint8), mask=mask)
    tl.store(picked + target, tl.where(positive, raw, 0.0).to(tl.bfloat16), mask=mask)


@triton.jit
def first_gradient(
    x, w, gradient, where, scale, slope, base, out, n, ni, nj, nk,
    turns: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum neighbours times the convolution's gradient: `out` (programs, 64, 8 C)."""
    row, column = tl.arange(0, 8 * C), tl.arange(0, 64)
    weights = tl.load(w + row[:, None] * 64 + column[None, :]).to(HALF)
    a, b, c = tl.load(scale + row % C), tl.load(slope + row % C), tl.load(base + row % C)
    total = tl.zeros((64, 8 * C), tl.float32)
    for turn in range(turns):
        cell = (tl.program_id(0) * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        near = _patches(x, cell, n, ni, nj, nk)
        d = c[:, None] + b[:, None] * tl.dot(weights, near)
        source = cell[None, :] * C + (row % C)[:, None]
        known = tl.broadcast_to((cell < n)[None, :], (8 * C, BLOCK))
        place = tl.load(where + source, mask=known, other=NOWHERE)
        given = tl.load(gradient + source, mask=known, other=0.0).to(tl.float32)
        d += tl.where(place == (row // C)[:, None], a[:, None] * given, 0.0)
        d = tl.where(_there(cell, n, ni, nj, nk, C), d, 0.0)
        high = d.to(HALF)  # in the air all are alike, and so would be their rounding errors
        total += tl.dot(near, tl.trans(high))
        total += tl.dot(near, tl.trans((d - high.to(tl.float32)).to(HALF)))
    target = out + tl.program_id(0) * 512 * C + column[:, None] * 8 * C + row[None, :]
    tl.store(target, total)


@triton.jit
def moments(x, out, n, turns: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    """Sum the distance from the first row and its square: `out` (programs, 2, C)."""
    channel = tl.arange(0, C)
    first = tl.load(x + channel).to(tl.float32)
    one, two = tl.zeros((BLOCK, C), tl.float32), tl.zeros((BLOCK, C), tl.float32)
    for turn in range(turns):
        rows = (tl.program_id(0) * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        source = rows[:, None].to(tl.int64) * C + channel[None, :]
        value = tl.load(x + source, mask=(rows < n)[:, None], other=0.0).to(tl.float32)
        value = tl.where((rows < n)[:, None], value - first[None, :], 0.0)
        one += value
        two += value * value
    target = out + tl.program_id(0) * 2 * C + channel
    tl.store(target, tl.sum(one, 0))
    tl.store(target + C, tl.sum(two, 0))


@triton.jit
def pool(x, scale, shift, out, where, picked, n, ni, nj, nk, C: tl.constexpr, BLOCK: tl.constexpr):
    """Normalise, pool and rectify `x` (B, I, J, K, C): `out`, `where`, `picked` (n, C)."""
    channel = tl.arange(0, C)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image, i, j, k = _corner(cell, ni, nj, nk)
    a, b = tl.load(scale + channel)[None, :], tl.load(shift + channel)[None, :]
    best, raw = tl.zeros((BLOCK, C), tl.float32), tl.zeros((BLOCK, C), tl.float32)
    place = tl.full((BLOCK, C), NOWHERE, tl.int32)
    for p in tl.static_range(8):
        u, v, w = i + p // 4, j + p // 2 % 2, k + p % 2
        there = ((u >= 0) & (v >= 0) & (w >= 0) & (cell < n))[:, None]
        voxel = ((image.to(tl.int64) * ni + u) * nj + v) * nk + w
        value = tl.load(x + voxel[:, None] * C + channel[None, :], mask=there, other=0.0)
        value = value.to(tl.float32)
        z = value * a + b
        better = ((z > best) | (z != z)) & there
        best = tl.where(better, z, best)
        raw = tl.where(better, value, raw)
        place = tl.where(better, p, place)
    target = cell[:, None].to(tl.int64) * C + channel[None, :]
    mask = (cell < n)[:, None]
    tl.store(out + target, best.to(tl.bfloat16), mask=mask)
    tl.store(where + target, place.to(tl.uint8), mask=mask)
    tl.store(picked + target, raw.to(tl.bfloat16), mask=mask)


@triton.jit
def sums(gradient, where, picked, mean, inverse, out, n, turns: tl.constexpr,
         C: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Sum the gradient, and it times the normalised input: `out` (programs, 2, C)."""
    channel = tl.arange(0, C)
    centre, width = tl.load(mean + channel)[None, :], tl.load(inverse + channel)[None, :]
    one, two = tl.zeros((BLOCK, C), tl.float32), tl.zeros((BLOCK, C), tl.float32)
    for turn in range(turns):
        rows = (tl.program_id(0) * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        source = rows[:, None].to(tl.int64) * C + channel[None, :]
        mask = (rows < n)[:, None]
        given = tl.load(gradient + source, mask=mask, other=0.0).to(tl.float32)
        place = tl.load(where + source, mask=mask, other=NOWHERE)
        given = tl.where(place != NOWHERE, given, 0.0)
        raw = tl.load(picked + source, mask=mask, other=0.0).to(tl.float32)
        one += given
        two += given * (raw - centre) * width
    target = out + tl.program_id(0) * 2 * C + channel
    tl.store(target, tl.sum(one, 0))
    tl.store(target + C, tl.sum(two, 0))


@triton.jit
def spread(
    x, gradient, where, scale, slope, base, out, n, ni, nj, nk, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Write the gradient of `x` (B, I, J, K, C)."""
    channel = tl.arange(0, C)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image, i, j, k = _corner(cell, ni, nj, nk)
    source = cell[:, None].to(tl.int64) * C + channel[None, :]
    mask = (cell < n)[:, None]
    given = tl.load(gradient + source, mask=mask, other=0.0).to(tl.float32)
    given *= tl.load(scale + channel)[None, :]
    place = tl.load(where + source, mask=mask, other=NOWHERE)
    b, c = tl.load(slope + channel)[None, :], tl.load(base + channel)[None, :]
    for p in tl.static_range(8):
        u, v, w = i + p // 4, j + p // 2 % 2, k + p % 2
        there = ((u >= 0) & (v >= 0) & (w >= 0) & (cell < n))[:, None]
        voxel = ((image.to(tl.int64) * ni + u) * nj + v) * nk + w
        here = voxel[:, None] * C + channel[None, :]
        value = c + b * tl.load(x + here, mask=there, other=0.0).to(tl.float32)
        value += tl.where(place == p, given, 0.0)
        tl.store(out + here, value.to(tl.bfloat16), mask=there)
