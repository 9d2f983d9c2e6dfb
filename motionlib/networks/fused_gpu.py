"""Conv5FC3's first block and its pools in one pass each over a GPU's memory (Triton, bf16).

Batch normalisation, ReLU and max-pool are bound by memory. Here a convolution's map is read twice
forward and once backward, and the largest one, the first convolution's, is never stored: a training
step on an H100 takes a quarter of the time. `pooling` asks `serves`, and falls back on torch.

A pool, `NormPoolGpu`, of a map x with N voxels a channel:

1. `_moments`  the mean and variance of each channel;
2. `_pool`     scale x + shift of the eight voxels of every pooled voxel: the maximum, one byte that
               says which voxel it was (`NOWHERE` if none is positive, which is the ReLU), and x
               there, so that step 3 reads an eighth of the map;
3. `_sums`     backward, of the gradient g of the pooled voxels: G = sum g and P = sum g x^, with
               x^ = (x - mean) / deviation at the maximum: the gradients of bias and weight;
4. `_spread`   the gradient of x: scale g at the maximum and slope x + base everywhere, which comes
               of the moments; slope = -scale P / (N deviation), base = -scale G / N - slope mean.

The first block, `FirstBlockGpu`: the convolution of one channel at the eight voxels of a pooled
voxel is a product of a matrix (8 C, 64), its 27 taps at eight places, with the 4 x 4 x 4 voxels
around. It is cheap enough to be done again in `_first_moments`, `_first_pool` and
`_first_gradient`; the last multiplies the same neighbours with step 4's gradient.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

NOWHERE = tl.constexpr(255)  # the maximum was a padding zero, or not positive
HALF = tl.constexpr(tl.bfloat16)  # what matrix products are fed with
MOST = 2**31  # values of a volume's batch that a kernel can count
PROGRAMS = 4096  # at most, of a kernel that sums; each leaves one partial sum
TILE = 2048  # values that a program of a pool holds at a time
CELLS = 32  # pooled voxels that a program of the first block takes at a time
# which of the 64 neighbours of a cell each of the 27 taps of each of its 8 voxels is, (8, 27)
TAPS = torch.arange(64).reshape(4, 4, 4).unfold(0, 3, 1).unfold(1, 3, 1).unfold(2, 3, 1)
TAPS = TAPS.reshape(8, 27)
FIRST = {"num_warps": 4, "num_stages": 2}  # how the first block's programs are compiled


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


@cache
def works(device: torch.device) -> bool:
    """Whether a kernel runs on a GPU: Triton asks for a C compiler at its first launch."""
    x = torch.ones(2, 2, 2, device=device)
    out = torch.empty(4, 4, 4, device=device, dtype=torch.bfloat16)
    try:
        _run(_padded, 1, x, out, out.numel(), 2, 2, 2, BLOCK=64)
        return float(out.sum()) == x.numel()
    except Exception as error:
        warnings.warn(
            f"Triton cannot build kernels here ({type(error).__name__}: {error}); training goes on "
            "with torch's own operations, several times slower. Install a C compiler to mend it.",
            stacklevel=2,
        )
        return False


class NormPoolGpu(torch.autograd.Function):
    """Normalise, pool and rectify a bf16 map (B, C, I, J, K) by its own moments."""

    @staticmethod
    def forward(ctx, x, weight, bias, norm):
        """Give the pooled map and move the running statistics of `norm`."""
        source = _channels_last(x)
        batch, *sizes, channels = source.shape
        count, block = source.numel() // channels, TILE // channels
        moments = _sum_over(_moments, (source,), (2, channels), count, C=channels, BLOCK=block)
        distance, squares = moments / count  # from the first voxel, which keeps them small
        mean = distance + source.reshape(-1, channels)[0].double()
        variance = squares - distance * distance
        scale, shift, inverse = _affine(norm, weight, bias, mean, variance, count)
        pooled, where, picked = _outputs(batch, sizes, channels, x.device)
        n, cells = where.numel() // channels, TILE // channels // 2
        given = (source, scale.float(), shift.float(), pooled, where, picked, n, *sizes)
        _run(_pool, -(-n // cells), *given, C=channels, BLOCK=cells)
        ctx.save_for_backward(source, where, picked, scale, mean, inverse)
        return pooled.permute(0, 4, 1, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Give the gradients of the map, the weight and the bias."""
        source, where, picked, *moments = ctx.saved_tensors
        _, *sizes, channels = source.shape
        gradient, count = _channels_last(gradient), source.numel() // channels
        summed, projected, line = _projections(gradient, where, picked, *moments, count)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.empty_like(source)
            n, cells = where.numel() // channels, TILE // channels // 2
            given = (source, gradient, where, *line, x_gradient, n, *sizes)
            _run(_spread, -(-n // cells), *given, C=channels, BLOCK=cells)
            x_gradient = x_gradient.permute(0, 4, 1, 2, 3)
        return x_gradient, projected, summed, None


class FirstBlockGpu(torch.autograd.Function):
    """Convolve volumes (B, 1, I, J, K), normalise, pool and rectify; the convolution is not kept.

    The gradient of the convolution's bias is exactly zero: the normalisation takes the bias out.
    """

    @staticmethod
    def forward(ctx, x, kernel, kernel_bias, weight, bias, norm):
        """Give the pooled map and move the running statistics of `norm`."""
        volumes = x.detach().contiguous()
        batch, _, *sizes = volumes.shape
        channels, count = kernel.shape[0], volumes.numel()
        # the 27 taps at their places among the 64 neighbours, once for each of the eight voxels
        matrix = torch.zeros(8, channels, 64, device=x.device)
        taps = kernel.detach().float().reshape(1, channels, 27).expand(8, -1, -1)
        matrix.scatter_(2, TAPS.to(x.device)[:, None, :].expand(-1, channels, -1), taps)
        matrix = matrix.reshape(8 * channels, 64).bfloat16()
        around = [2 * -(-n // 2) + 2 for n in sizes]
        wide = torch.empty(batch, *around, dtype=torch.bfloat16, device=x.device)
        _run(_padded, -(-wide.numel() // 1024), volumes, wide, wide.numel(), *sizes, BLOCK=1024)
        pooled, where, picked = _outputs(batch, sizes, channels, x.device)
        n, options = where.numel() // channels, {"C": channels, "BLOCK": CELLS} | FIRST
        shape = (2, 8, channels)
        moments = _sum_over(_first_moments, (wide, matrix), shape, n, *sizes, **options)
        mean, squares = moments.sum(1) / count  # of the convolution without its bias
        variance = squares - mean * mean
        added = 0.0 if kernel_bias is None else kernel_bias.detach().double()
        scale, shift, inverse = _affine(norm, weight, bias, mean, variance, count, added)
        given = (wide, matrix, scale.float(), shift.float(), pooled, where, picked, n, *sizes)
        _run(_first_pool, -(-n // CELLS), *given, **options)
        ctx.save_for_backward(wide, matrix, where, picked, scale, mean, inverse)
        ctx.biased, ctx.sizes, ctx.count = kernel_bias is not None, sizes, count
        return pooled.permute(0, 4, 1, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Give the gradients of the convolution's and the normalisation's parameters."""
        wide, matrix, where, picked, *moments = ctx.saved_tensors
        gradient, channels = _channels_last(gradient), matrix.shape[0] // 8
        summed, projected, line = _projections(gradient, where, picked, *moments, ctx.count)
        given, shape = (wide, matrix, gradient, where, *line), (64, 8, channels)
        n, options = where.numel() // channels, {"C": channels, "BLOCK": CELLS} | FIRST
        products = _sum_over(_first_gradient, given, shape, n, *ctx.sizes, **options)
        taps = TAPS.to(gradient.device).T[:, :, None].expand(-1, -1, channels)  # (27, 8, C)
        kernel = products.gather(0, taps).sum(1).T.reshape(channels, 1, 3, 3, 3).float()
        bias = torch.zeros(channels, device=gradient.device) if ctx.biased else None
        return None, kernel, bias, projected, summed, None


def _run(kernel, programs: int, *given, **options) -> None:
    """Launch a kernel on the device of its first tensor, which need not be the current one."""
    with torch.cuda.device_of(given[0]):
        kernel[(programs,)](*given, **options)


def _sum_over(kernel, given: tuple, shape: tuple, n: int, *sizes: int, **options) -> torch.Tensor:
    """Launch a summing kernel; add its partial sums in double precision, in their order."""
    blocks = -(-n // options["BLOCK"])
    turns = -(-blocks // PROGRAMS)
    programs = -(-blocks // turns)
    partial = torch.empty(programs, *shape, device=given[0].device)
    _run(kernel, programs, *given, partial, n, *sizes, turns, **options)
    return partial.sum(0, dtype=torch.float64)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """View (B, C, I, J, K) as contiguous (B, I, J, K, C)."""
    return x.detach().permute(0, 2, 3, 4, 1).contiguous()


def _outputs(batch: int, sizes: list[int], channels: int, device) -> tuple[torch.Tensor, ...]:
    """Memory for the pooled values, their places, and what was picked there."""
    shape = (batch, *(-(-n // 2) for n in sizes), channels)
    types = (torch.bfloat16, torch.uint8, torch.bfloat16)
    return tuple(torch.empty(shape, dtype=dtype, device=device) for dtype in types)


def _affine(norm, weight, bias, mean, variance, count: int, added=0.0):
    """Scale, shift and inverse deviation; moves the running statistics, their mean by `added`."""
    with torch.no_grad():  # as BatchNorm3d does
        norm.running_mean.lerp_((mean + added).float(), norm.momentum)
        norm.running_var.lerp_((variance * (count / (count - 1))).float(), norm.momentum)
        norm.num_batches_tracked += 1
    inverse = torch.rsqrt(variance + norm.eps)
    scale = weight.detach().double() * inverse
    return scale, bias.detach().double() - mean * scale, inverse


def _projections(gradient, where, picked, scale, mean, inverse, count: int):
    """G and P of step 3 for each channel, and scale, slope and base of step 4."""
    channels = gradient.shape[-1]
    n, options = where.numel() // channels, {"C": channels, "BLOCK": TILE // channels}
    given = (gradient, where, picked, mean.float(), inverse.float())
    summed, projected = _sum_over(_sums, given, (2, channels), n, **options)
    slope = -scale * inverse * projected / count
    base = -scale * summed / count - slope * mean
    return summed.float(), projected.float(), (scale.float(), slope.float(), base.float())


# Kernels. A cell is a pooled voxel, counted over all images; its eight voxels are numbered
# p = 4 a + 2 b + c by their offsets along I, J and K. An odd axis has one plane of zeros at its
# front (index -1), which takes part in no moment and wins no maximum.


@triton.jit
def _corner(cell, ni, nj, nk):
    """Image and first voxel (-1 in the plane of zeros of an odd axis) of cells."""
    ok, oj, oi = (nk + 1) // 2, (nj + 1) // 2, (ni + 1) // 2
    k = cell % ok * 2 - nk % 2
    j = cell // ok % oj * 2 - nj % 2
    i = cell // (ok * oj) % oi * 2 - ni % 2
    return cell // (ok * oj * oi), i, j, k


@triton.jit
def _moments(x, out, n, turns: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    """Sum the distance from the first row and its square: `out` (programs, 2, C)."""
    channel = tl.arange(0, C)
    first = tl.load(x + channel).to(tl.float32)
    total, squares = tl.zeros((BLOCK, C), tl.float32), tl.zeros((BLOCK, C), tl.float32)
    for turn in range(turns):
        rows = (tl.program_id(0) * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        source = rows[:, None].to(tl.int64) * C + channel[None, :]
        value = tl.load(x + source, mask=(rows < n)[:, None], other=0.0).to(tl.float32)
        value = tl.where((rows < n)[:, None], value - first[None, :], 0.0)
        total += value
        squares += value * value
    target = out + tl.program_id(0) * 2 * C + channel
    tl.store(target, tl.sum(total, 0))
    tl.store(target + C, tl.sum(squares, 0))


@triton.jit
def _pool(x, scale, shift, out, where, picked, n, ni, nj, nk, C: tl.constexpr, BLOCK: tl.constexpr):
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
        better = ((z > best) | (z != z)) & there  # NaN wins, so that it is not hidden
        best = tl.where(better, z, best)
        raw = tl.where(better, value, raw)
        place = tl.where(better, p, place)
    target = cell[:, None].to(tl.int64) * C + channel[None, :]
    mask = (cell < n)[:, None]
    tl.store(out + target, best.to(tl.bfloat16), mask=mask)
    tl.store(where + target, place.to(tl.uint8), mask=mask)
    tl.store(picked + target, raw.to(tl.bfloat16), mask=mask)


@triton.jit
def _sums(gradient, where, picked, mean, inverse, out, n, turns: tl.constexpr,
          C: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Sum the gradient, and it times the normalised input: `out` (programs, 2, C)."""
    channel = tl.arange(0, C)
    centre, width = tl.load(mean + channel)[None, :], tl.load(inverse + channel)[None, :]
    summed, projected = tl.zeros((BLOCK, C), tl.float32), tl.zeros((BLOCK, C), tl.float32)
    for turn in range(turns):
        rows = (tl.program_id(0) * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        source = rows[:, None].to(tl.int64) * C + channel[None, :]
        mask = (rows < n)[:, None]
        given = tl.load(gradient + source, mask=mask, other=0.0).to(tl.float32)
        place = tl.load(where + source, mask=mask, other=NOWHERE)
        given = tl.where(place != NOWHERE, given, 0.0)
        raw = tl.load(picked + source, mask=mask, other=0.0).to(tl.float32)
        summed += given
        projected += given * (raw - centre) * width
    target = out + tl.program_id(0) * 2 * C + channel
    tl.store(target, tl.sum(summed, 0))
    tl.store(target + C, tl.sum(projected, 0))


@triton.jit
def _spread(x, gradient, where, scale, slope, base, out, n, ni, nj, nk,
            C: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
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


@triton.jit
def _padded(x, out, n, ni, nj, nk, BLOCK: tl.constexpr):
    """Copy volumes into zeros that reach one voxel beyond every cell, in bf16."""
    pi, pj, pk = (ni + 1) // 2 * 2 + 2, (nj + 1) // 2 * 2 + 2, (nk + 1) // 2 * 2 + 2
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
    """Load the 64 voxels around cells from `_padded` volumes, (64, BLOCK)."""
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
    """Which of the eight voxels of each cell exist, (8 C, BLOCK)."""
    _, i, j, k = _corner(cell, ni, nj, nk)
    p = tl.arange(0, 8 * C) // C
    front = (i[None, :] + (p // 4)[:, None] >= 0) & (j[None, :] + (p // 2 % 2)[:, None] >= 0)
    return front & (k[None, :] + (p % 2)[:, None] >= 0) & (cell < n)[None, :]


@triton.jit
def _first_moments(x, w, out, n, ni, nj, nk, turns: tl.constexpr,
                   C: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Sum a bias-free convolution and its square over voxels: `out` (programs, 2, 8 C)."""
    row, column = tl.arange(0, 8 * C), tl.arange(0, 64)
    weights = tl.load(w + row[:, None] * 64 + column[None, :]).to(HALF)
    total, squares = tl.zeros((8 * C, BLOCK), tl.float32), tl.zeros((8 * C, BLOCK), tl.float32)
    for turn in range(turns):
        cell = (tl.program_id(0) * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        y = tl.dot(weights, _patches(x, cell, n, ni, nj, nk))
        y = tl.where(_there(cell, n, ni, nj, nk, C), y, 0.0)
        total += y
        squares += y * y
    target = out + tl.program_id(0) * 16 * C + row
    tl.store(target, tl.sum(total, 1))
    tl.store(target + 8 * C, tl.sum(squares, 1))


@triton.jit
def _first_pool(x, w, scale, shift, out, where, picked, n, ni, nj, nk,
                C: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
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
    rectified = tl.where(positive | (best != best), best, 0.0)  # NaN is not hidden
    target = cell[None, :] * C + channel[:, None]
    mask = tl.broadcast_to((cell < n)[None, :], (C, BLOCK))
    tl.store(out + target, rectified.to(tl.bfloat16), mask=mask)
    tl.store(where + target, tl.where(positive, place, NOWHERE).to(tl.uint8), mask=mask)
    tl.store(picked + target, tl.where(positive, raw, 0.0).to(tl.bfloat16), mask=mask)


@triton.jit
def _first_gradient(x, w, gradient, where, scale, slope, base, out, n, ni, nj, nk,
                    turns: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
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
        # d as a sum of two bf16 numbers: in the air all are alike, and so would be their errors
        high = d.to(HALF)
        total += tl.dot(near, tl.trans(high))
        total += tl.dot(near, tl.trans((d - high.to(tl.float32)).to(HALF)))
    target = out + tl.program_id(0) * 512 * C + column[:, None] * 8 * C + row[None, :]
    tl.store(target, total)
