"""Batch normalisation, ReLU and padded max-pool of a convolution's output, fused into one pass.

On a CPU the three are bound by memory. One pass over the map finds its moments and one more
normalises, pools and rectifies; one byte a pooled value says where the maximum was, so that the
backward pass writes the convolution's gradient directly. In bf16 on a GPU `fused_gpu` does the
like, step by step as told there. Elsewhere torch's own operations give the same to rounding.
"""

from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from motionlib.compute.compiled import compiled
from motionlib.networks.fused_cpu import NOWHERE, FirstBlockCpu, fused

FEW_CHANNELS = 16  # a program of the GPU's first block holds 8 voxels of each


class NormPool(nn.BatchNorm3d):
    """Batch normalisation, padded max-pool of 2, then ReLU, with BatchNorm3d's tensors.

    Source: ClinicaDL 1.x, ``BatchNorm3d``, ``ReLU``, ``PadMaxPool3d(2, 2)``: odd axes get one plane
    of zeros at the front. Not ``MaxPool3d(2, 2, ceil_mode=True)``, which pads at the end.
    Departs from the paper in the order of ReLU and pool, which exchange exactly: values and
    gradients are the same, because the padding is zero.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``(B, C, I, J, K)`` into ``(B, C, ceil(I/2), ceil(J/2), ceil(K/2))``."""
        asked = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        plain = _plain(x)
        if plain and self.training and x.numel() // x.shape[1] > 1:
            mean, variance = _moments(_last(x).numpy())
            if torch.isfinite(variance).all():
                self.follow(mean, variance, x.numel() // x.shape[1])
                return _NormPool.apply(x, self.weight, self.bias, mean, variance, self.eps)
        elif plain and not self.training and not asked:
            running = self.running_mean, self.running_var
            return _pooled(x, self.weight, self.bias, *running, self.eps)[0]
        elif x.is_cuda and x.dtype == torch.bfloat16 and kernels_at_hand():
            from motionlib.networks.fused_gpu import NormPoolGpu, serves  # needs Triton

            if serves(x, self):
                return NormPoolGpu.apply(x, self.weight, self.bias, self)
        return nn.functional.relu(padded_max_pool(super().forward(x)))

    @torch.no_grad()
    def follow(self, mean: torch.Tensor, variance: torch.Tensor, count: float) -> None:
        """Let the running statistics follow those of a batch of `count` voxels."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked += 1


class FirstBlock(nn.Sequential):
    """A convolution of one channel and its `NormPool`, in one go where there are kernels for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``(B, 1, I, J, K)`` into ``(B, C, ceil(I/2), ceil(J/2), ceil(K/2))``."""
        conv, norm = self
        few = norm.num_features <= FEW_CHANNELS
        parameters = conv.weight, conv.bias, norm.weight, norm.bias
        if x.requires_grad:  # the kernels give the input no gradient
            return super().forward(x)
        if _plain(x) and min(x.shape[2:]) > 1 and norm.num_features % 2 == 0:
            if norm.training and torch.isfinite(x).all():
                return FirstBlockCpu.apply(x, *parameters, norm)
            if not norm.training and not torch.is_grad_enabled():
                taps = np.column_stack([conv.weight.flatten(1), conv.bias])
                line = _line(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
                return fused(x[:, 0].numpy(), taps, *line)[0]
        elif few and x.is_cuda and kernels_at_hand():
            from motionlib.networks.fused_gpu import FirstBlockGpu, serves  # needs Triton

            if serves(x, norm):
                return FirstBlockGpu.apply(x, *parameters, norm)
        return super().forward(x)


def _plain(x: torch.Tensor) -> bool:
    """Whether the kernels of a CPU serve."""
    single = x.device.type == "cpu" and x.dtype == torch.float32
    return single and not torch.is_autocast_enabled("cpu")


@cache
def kernels_at_hand() -> bool:
    """Whether Triton, which CUDA builds of torch bring along on Linux, is installed."""
    return find_spec("triton") is not None


def padded_max_pool(x: torch.Tensor) -> torch.Tensor:
    """Halve the three last axes by maximum, after one zero plane at the front of each odd one."""
    i, j, k = (n % 2 for n in x.shape[2:])
    if i or j or k:
        x = nn.functional.pad(x, (k, 0, j, 0, i, 0))
    return nn.functional.max_pool3d(x, 2, 2)


class _NormPool(torch.autograd.Function):
    """Differentiate through the batch's own mean and variance."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, eps):
        out, where, picked = _pooled(x, weight, bias, mean, variance, eps)
        ctx.save_for_backward(x, weight, mean, variance, where, picked)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, weight, mean, variance, where, picked = ctx.saved_tensors
        mean = mean.double().numpy()
        inverse = 1 / np.sqrt(variance.double().numpy() + ctx.eps)
        gradient = _last(gradient)
        summed, projected = _sums(gradient.numpy(), where.numpy(), picked.numpy(), mean, inverse)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            # the maximum gets scale times its gradient; the moments add a line in x, everywhere
            count = x.numel() // x.shape[1]
            scale = weight.detach().double().numpy() * inverse
            slope = -scale * inverse * projected / count
            base = -scale * summed / count - slope * mean
            source = _last(x)
            x_gradient = torch.empty_like(source)
            line = (a.astype(np.float32) for a in (scale, slope, base))
            given = (source.numpy(), gradient.numpy(), where.numpy(), *line)
            _spread(*given, x_gradient.numpy())
            x_gradient = x_gradient.permute(0, 4, 1, 2, 3)
        sums = (torch.from_numpy(a).float() for a in (projected, summed))
        return x_gradient, *sums, None, None, None


def _last(x: torch.Tensor) -> torch.Tensor:
    """View (B, C, I, J, K) as contiguous (B, I, J, K, C); a copy if it is laid out otherwise."""
    return x.detach().permute(0, 2, 3, 4, 1).contiguous()


def _line(weight, bias, mean, variance, eps) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of each channel that normalise it."""
    scale = weight.detach() / torch.sqrt(variance + eps)
    return scale.numpy(), (bias.detach() - mean * scale).numpy()


def _halved(shape: torch.Size) -> tuple[int, ...]:
    """Shape (B, i, j, k, C) of what is pooled from (B, I, J, K, C)."""
    batch, *sizes, channels = shape
    return batch, *(-(-n // 2) for n in sizes), channels


def _pooled(x, weight, bias, mean, variance, eps):
    """Normalise and pool; output, place of each maximum, and the input there."""
    source = _last(x)
    shape = _halved(source.shape)
    out, picked = source.new_empty(shape), source.new_empty(shape)
    where = torch.empty(shape, dtype=torch.uint8)
    line = _line(weight, bias, mean, variance, eps)
    _pool(source.numpy(), *line, out.numpy(), where.numpy(), picked.numpy())
    return out.permute(0, 4, 1, 2, 3), where, picked


def _moments(x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance of each channel of (B, I, J, K, C), summed in double precision."""
    shape, count = x.shape[3:], x.size // x.shape[4]
    lines = x.reshape(-1, shape[0] * shape[1])  # long enough for the processor's vectors
    first = np.tile(lines[0, : shape[1]].astype(np.float64), shape[0])
    mean, square = (a.reshape(shape).sum(axis=0) / count for a in _line_sums(lines, first))
    variance = np.maximum(square - mean * mean, 0.0)
    return tuple(torch.from_numpy(a).float() for a in (mean + first[: shape[1]], variance))


@compiled()
def _line_sums(lines, first):
    """Add up lines (N, K C) of values less the `first`, and their squares."""
    total, squares = np.zeros(first.size), np.zeros(first.size)
    for line in lines:
        for t in range(first.size):
            value = np.float64(line[t]) - first[t]
            total[t] += value
            squares[t] += value * value
    return total, squares


@compiled()
def _pool(x, scale, shift, out, where, picked):
    """Fill `out`, `where` and `picked` (B, i, j, k, C) from `x` (B, I, J, K, C)."""
    _, ni, nj, nk, channels = x.shape
    di, dj, dk = ni % 2, nj % 2, nk % 2
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for k in range(out.shape[3]):
                    best, place, raw = out[b, i, j, k], where[b, i, j, k], picked[b, i, j, k]
                    for c in range(channels):
                        best[c] = 0
                        place[c] = NOWHERE
                        raw[c] = 0
                    for p in range(8):
                        u, v, w = 2 * i - di + p // 4, 2 * j - dj + p // 2 % 2, 2 * k - dk + p % 2
                        if u < 0 or v < 0 or w < 0:
                            continue
                        here = x[b, u, v, w]
                        for c in range(channels):
                            value = here[c] * scale[c] + shift[c]
                            if value > best[c]:
                                best[c] = value
                                place[c] = p
                                raw[c] = here[c]


@compiled()
def _sums(gradient, where, picked, mean, inverse):
    """Sum over each channel the gradient, and of the gradient times the normalised input."""
    channels = gradient.shape[4]
    g, w = gradient.reshape(-1, channels), where.reshape(-1, channels)
    r = picked.reshape(-1, channels)
    summed, projected = np.zeros(channels), np.zeros(channels)
    for row in range(g.shape[0]):
        for c in range(channels):
            value = np.float64(g[row, c]) if w[row, c] != NOWHERE else 0.0
            summed[c] += value
            projected[c] += value * (r[row, c] - mean[c]) * inverse[c]
    return summed, projected


@compiled()
def _spread(x, gradient, where, scale, slope, base, out):
    """Fill `out` (B, I, J, K, C) with the gradient of the convolution's output."""
    _, ni, nj, nk, channels = x.shape
    di, dj, dk = ni % 2, nj % 2, nk % 2
    scaled = np.empty(channels, np.float32)
    for b in range(gradient.shape[0]):
        for i in range(gradient.shape[1]):
            for j in range(gradient.shape[2]):
                for k in range(gradient.shape[3]):
                    place = where[b, i, j, k]
                    for c in range(channels):
                        scaled[c] = scale[c] * gradient[b, i, j, k, c]
                    for p in range(8):
                        u, v, w = 2 * i - di + p // 4, 2 * j - dj + p // 2 % 2, 2 * k - dk + p % 2
                        if u < 0 or v < 0 or w < 0:
                            continue
                        here, into = x[b, u, v, w], out[b, u, v, w]
                        for c in range(channels):
                            found = scaled[c] if place[c] == p else np.float32(0)
                            into[c] = base[c] + slope[c] * here[c] + found
