"""Volumes or feature maps on a GPU go in; the network's half-size maps come out, in few passes.

The kernels do in bf16 what `normpool` does on a CPU, and more for the first block: its convolution
of one channel is computed again where it is needed instead of being stored, a small matrix product
on the 4 x 4 x 4 neighbours of each pooled voxel. Sums are taken in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

NOWHERE = tl.constexpr(255)  # the maximum was a padding zero, or not positive
HALF = tl.constexpr(tl.bfloat16)  # what matrix products are fed with
CELLS = 32  # pooled voxels a program takes at a time in the first block
PROGRAMS = 4096  # at most, of a kernel that sums; each leaves one partial sum


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
