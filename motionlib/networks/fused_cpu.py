"""The first block on a CPU: convolution of one channel, batch normalisation, pool and ReLU.

The output of that convolution is the largest array of a training step, and the step waits for it to
be written and read six times. Here it is never stored:

1. it is linear in the 27 voxels around, so that its mean and variance follow from the sums of
   products of neighbours (`patch_sums`), for all channels at once;
2. it is computed by lines and pooled at once; one byte a pooled value says where the maximum was
   (`convolve_and_pool`);
3. its gradient is a sparse part at the maxima (`at_maxima`) and, through the moments, a line in its
   own value, whose sum over voxels follows from step 1.

Source: the algebra of batch normalisation's gradient (Ioffe and Szegedy 2015); the rest is ours.
"""

import numpy as np
import torch

from motionlib.compute.compiled import compiled

NOWHERE = 255  # the maximum was a padding zero, or not positive
LINE = 16  # voxels of a line are computed in multiples of it, the processor's vectors
FREE = {"contract", "reassoc", "nsz"}  # what the compiler may do to sums


class FirstBlockCpu(torch.autograd.Function):
    """Apply the block to (B, 1, I, J, K), float32; its mean and variance are the batch's."""

    @staticmethod
    def forward(ctx, x, weight, bias, gamma, beta, norm):
        """Normalise by the batch, pool, and let the running statistics of `norm` follow."""
        source = x.detach()[:, 0].numpy()
        # a convolution is a product of the 27 voxels around, and of one for the bias
        taps = np.column_stack([weight.detach().flatten(1), bias.detach()]).astype(np.float64)
        sums = patch_sums(source)
        mean = taps @ sums[-1] / sums[-1, -1]
        second = ((taps @ sums) * taps).sum(1) / sums[-1, -1]
        variance = np.maximum(second - mean**2, 0)
        norm.follow(*(torch.from_numpy(a).float() for a in (mean, variance)), sums[-1, -1])
        inverse = 1 / np.sqrt(variance + norm.eps)
        scale = gamma.detach().numpy() * inverse
        out, where, framed = fused(source, taps, scale, beta.detach().numpy() - mean * scale)
        ctx.saved = framed, where, taps, sums, mean, inverse, scale
        return out

    @staticmethod
    def backward(ctx, gradient):
        """Give the gradients of kernel, bias, scale and shift; the input gets none."""
        framed, where, taps, sums, mean, inverse, scale = ctx.saved
        gradient = gradient.permute(0, 2, 3, 4, 1).contiguous().numpy()
        found = at_maxima(framed, gradient, where)
        summed, count = found[:, -1], sums[-1, -1]
        projected = inverse * ((found * taps).sum(1) - mean * summed)
        # the maximum gets scale times its gradient; the moments add a line in x, everywhere
        slope = -scale * inverse * projected / count
        base = -scale * summed / count - slope * mean
        whole = scale[:, None] * found + slope[:, None] * (taps @ sums) + base[:, None] * sums[-1]
        parts = whole[:, :-1].reshape(-1, 1, 3, 3, 3), whole[:, -1], projected, summed
        return None, *(torch.from_numpy(a).float() for a in parts), None


def fused(source: np.ndarray, taps: np.ndarray, scale: np.ndarray, shift: np.ndarray):
    """Output (B, C, i, j, k) of the block for (B, I, J, K), place of each maximum, framed input."""
    batch, *sizes = source.shape
    shape = batch, *(-(-n // 2) for n in sizes), len(taps)
    out, where = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    kernel = (taps[:, :-1] * scale[:, None]).astype(np.float32)
    # zeros around, and one plane more in front of odd axes, the pool's padding
    framed = np.pad(source, [(0, 0), *((1 + n % 2, 1) for n in sizes)])
    rest = [(0, 0)] * 3 + [(0, -shape[3] % LINE)]
    even, odd = (np.pad(framed[..., first::2], rest) for first in (0, 1))
    shift = (taps[:, -1] * scale + shift).astype(np.float32)
    convolve_and_pool(even, odd, tuple(n % 2 for n in sizes), kernel, shift, out, where)
    return torch.from_numpy(out).permute(0, 4, 1, 2, 3), where, framed


def patch_sums(source: np.ndarray) -> np.ndarray:
    """Sum over all voxels of (B, I, J, K), zero outside, the products of the 27 voxels around.

    Returns (28, 28), double; the last row and column are sums of the voxels alone, the corner the
    number of voxels.
    """
    upper = _patch_sums(np.pad(source, [(0, 0), (0, 2), (2, 2), (2, 2)]).astype(np.float64))
    return upper + np.triu(upper, 1).T


@compiled(fastmath=FREE)
def _patch_sums(wide):
    """Upper triangle of `patch_sums`, from the framed volumes.

    Two voxels of a patch make a lag, and 63 lags all products; where a patch is moved over the
    edge, one plane of the sum is missing, so sums are kept by plane: first, between or last on each
    axis.
    """
    batch, ni, nj, nk = wide.shape[0], wide.shape[1] - 2, wide.shape[2] - 4, wide.shape[3] - 4
    sums, alone = np.zeros((3, 5, 5, 3, 3, 3)), np.zeros((3, 3, 3))
    for b in range(batch):
        for i in range(ni):
            for j in range(nj):
                p, q = (i > 0) + (i == ni - 1), (j > 0) + (j == nj - 1)
                here, total = wide[b, i, j + 2, 2 : nk + 2], 0.0
                for k in range(nk):
                    total += here[k]
                alone[p, q, 0] += here[0]
                alone[p, q, 1] += total - here[0] - here[nk - 1]
                alone[p, q, 2] += here[nk - 1]
                for di in range(3):
                    for dj in range(-2 if di else 0, 3):
                        there = wide[b, i + di, j + 2 + dj]
                        s, t, u, v, w = 0.0, 0.0, 0.0, 0.0, 0.0
                        for k in range(nk):
                            s += here[k] * there[k]
                            t += here[k] * there[k + 1]
                            u += here[k] * there[k + 2]
                            v += here[k] * there[k + 3]
                            w += here[k] * there[k + 4]
                        first, last = here[0] * there[2], here[nk - 1] * there[nk + 1]
                        into = sums[di, dj + 2, :, p, q]
                        into[0, 1], into[1, 1] = into[0, 1] + s, into[1, 1] + t
                        into[3, 1], into[4, 1] = into[3, 1] + v, into[4, 1] + w
                        into[2, 0], into[2, 2] = into[2, 0] + first, into[2, 2] + last
                        into[2, 1] += u - first - last
    out = np.zeros((28, 28))
    for a in range(27):
        i, j, k = a // 9, a // 3 % 3, a % 3
        for place in range(27):
            p, q, r = place // 9, place // 3 % 3, place % 3
            if (i - 1) * (p - 1) < 0 or (j - 1) * (q - 1) < 0 or (k - 1) * (r - 1) < 0:
                continue  # the plane that is moved over the edge
            out[a, 27] += alone[p, q, r]
            for b in range(a, 27):
                out[a, b] += sums[b // 9 - i, b // 3 % 3 - j + 2, b % 3 - k + 2, p, q, r]
    out[27, 27] = batch * ni * nj * nk
    return out


@compiled(fastmath={"contract"})
def convolve_and_pool(even, odd, padding, kernel, shift, out, where):
    """Fill `out` and `where` (B, i, j, k, C), C even, from framed volumes and `kernel` (C, 27).

    A line is kept as its even and its odd voxels, so that both places of a pooled voxel along the
    line lie side by side; two channels go together, for each voxel is then read once for both.
    """
    di, dj, dk = padding
    batch, oi, oj, ok, channels = out.shape
    n = even.shape[3] - 1
    found = np.empty((4, n), np.float32)
    best, place = np.empty((channels, n), np.float32), np.empty((channels, n), np.int32)
    f0, f1, f2, f3 = found[0], found[1], found[2], found[3]
    for b in range(batch):
        for i in range(oi):
            for j in range(oj):
                best[:] = 0
                place[:] = NOWHERE
                for c in range(0, channels, 2):
                    for p in range(0, 8, 2):
                        u, v = 2 * i + p // 4, 2 * j + p // 2 % 2
                        if u < di or v < dj:
                            continue
                        found[:2] = shift[c]
                        found[2:] = shift[c + 1]
                        for t in range(3):
                            x, w = even[b, u + t], odd[b, u + t]
                            e, f, g = x[v], x[v + 1], x[v + 2]
                            o, q, r = w[v], w[v + 1], w[v + 2]
                            y, z = kernel[c, 9 * t :], kernel[c + 1, 9 * t :]
                            y0, y1, y2, y3, y4, y5 = y[0], y[1], y[2], y[3], y[4], y[5]
                            z0, z1, z2, z3, z4, z5 = z[0], z[1], z[2], z[3], z[4], z[5]
                            y6, y7, y8, z6, z7, z8 = y[6], y[7], y[8], z[6], z[7], z[8]
                            for k in range(n):
                                a0, a1, a2, a3 = e[k], o[k], e[k + 1], o[k + 1]
                                b0, b1, b2, b3 = f[k], q[k], f[k + 1], q[k + 1]
                                c0, c1, c2, c3 = g[k], r[k], g[k + 1], r[k + 1]
                                f0[k] += y0 * a0 + y1 * a1 + y2 * a2 + y3 * b0 + y4 * b1 + y5 * b2
                                f1[k] += y0 * a1 + y1 * a2 + y2 * a3 + y3 * b1 + y4 * b2 + y5 * b3
                                f2[k] += z0 * a0 + z1 * a1 + z2 * a2 + z3 * b0 + z4 * b1 + z5 * b2
                                f3[k] += z0 * a1 + z1 * a2 + z2 * a3 + z3 * b1 + z4 * b2 + z5 * b3
                                f0[k] += y6 * c0 + y7 * c1 + y8 * c2
                                f1[k] += y6 * c1 + y7 * c2 + y8 * c3
                                f2[k] += z6 * c0 + z7 * c1 + z8 * c2
                                f3[k] += z6 * c1 + z7 * c2 + z8 * c3
                        for s in range(4):
                            if dk and s % 2 == 0:
                                found[s, 0] = -1  # the padding
                            values, top, at = found[s], best[c + s // 2], place[c + s // 2]
                            for k in range(n):
                                more = values[k] > top[k]
                                top[k] = values[k] if more else top[k]
                                at[k] = np.int32(p + s % 2) if more else at[k]
                for k in range(ok):
                    for c in range(channels):
                        out[b, i, j, k, c], where[b, i, j, k, c] = best[c, k], place[c, k]


@compiled(fastmath={"contract"})
def at_maxima(framed, gradient, where):
    """Sum a gradient (B, i, j, k, C) times the 27 voxels around its maximum, and alone.

    Returns (C, 28), double. The 64 voxels that the patches of a pooled voxel share are gathered
    once; each place of a maximum has sums of its own, which are brought together at the end.
    """
    batch, oi, oj, ok, channels = gradient.shape
    part, near = np.empty((channels, 8, 64), np.float32), np.empty(64, np.float32)
    sums, out = np.zeros((channels, 8, 64)), np.zeros((channels, 28))
    for b in range(batch):
        for i in range(oi):
            part[:] = 0
            for j in range(oj):
                for k in range(ok):
                    for s in range(4):
                        for t in range(4):
                            for u in range(4):
                                near[16 * s + 4 * t + u] = framed[
                                    b, 2 * i + s, 2 * j + t, 2 * k + u
                                ]
                    for c in range(channels):
                        place = where[b, i, j, k, c]
                        if place == NOWHERE:
                            continue
                        g, into = gradient[b, i, j, k, c], part[c, place]
                        out[c, 27] += g
                        for t in range(64):
                            into[t] += g * near[t]
            for c in range(channels):
                for p in range(8):
                    for t in range(64):
                        sums[c, p, t] += part[c, p, t]
    for c in range(channels):
        for p in range(8):
            for t in range(27):
                i, j, k = p // 4 + t // 9, p // 2 % 2 + t // 3 % 3, p % 2 + t % 3
                out[c, t] += sums[c, p, 16 * i + 4 * j + k]
    return out
