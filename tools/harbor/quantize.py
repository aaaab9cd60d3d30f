"""INT4 weights in the `pack-quantized` format of compressed-tensors: rounding, packing and the way back.

Pure functions on tensors: no files, no model, no chance. A weight has the shape [out, in]. Each row is cut
into groups of 128 columns; a group shares one BF16 scale, and each of its weights is an integer from -8 to 7
times that scale. Eight such integers travel in one 32-bit word.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 4
GROUP_SIZE = 128
LOWEST, HIGHEST = -8, 7
VALUES_PER_WORD = 32 // BITS

# A scale that clips the largest weight of a group can serve the many small ones better; 1.0 clips nothing.
CLIP_RATIOS = tuple(round(0.50 + 0.02 * step, 2) for step in range(26))

# The smallest scale written. A group of zeros would otherwise divide by zero.
SMALLEST_SCALE = 2.0**-40


def pack_int4(values: Tensor) -> Tensor:
    """Pack int8 values in -8..7, [out, in], into int32 words, [out, in / 8].

    Each value is stored as value + 8, the first of eight in the lowest four bits: the order in which
    `compressed_tensors` and vLLM read them.

    Raises ValueError when the columns do not fill whole words or a value does not fit in four bits.
    """
    rows, columns = values.shape
    if columns % VALUES_PER_WORD:
        raise ValueError(f"{columns} columns do not fill words of {VALUES_PER_WORD} values")
    if values.min() < LOWEST or values.max() > HIGHEST:
        raise ValueError(f"values must lie in {LOWEST}..{HIGHEST}")
    nibbles = (values.to(torch.int64) - LOWEST).view(rows, -1, VALUES_PER_WORD)
    words = (nibbles << _bit_positions()).sum(dim=2)
    # The sum is an unsigned 32-bit number; the file holds the same bits as a signed one.
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack_int4(packed: Tensor) -> Tensor:
    """Unpack int32 words, [out, in / 8], into int8 values in -8..7, [out, in]; the inverse of `pack_int4`."""
    words = packed.to(torch.int64).unsqueeze(2)
    nibbles = (words >> _bit_positions()) & (2**BITS - 1)
    return (nibbles + LOWEST).to(torch.int8).flatten(start_dim=1)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight, [out, in], to INT4 values, int8 [out, in], and group scales, BF16 [out, in / 128].

    Raises ValueError when the columns are not whole groups.
    """
    groups = _grouped(weight.float())
    scales = _best_scales(groups)
    values = _rounded(groups, scales).to(torch.int8)
    return values.flatten(start_dim=1), scales.squeeze(2)


def dequantize(values: Tensor, scales: Tensor) -> Tensor:
    """Return the float32 weight, [out, in], of INT4 values, [out, in], and scales, [out, in / 128]."""
    return (_grouped(values.float()) * scales.float().unsqueeze(2)).flatten(start_dim=1)


def _bit_positions() -> Tensor:
    return torch.arange(VALUES_PER_WORD) * BITS


def _grouped(weight: Tensor) -> Tensor:
    rows, columns = weight.shape
    if columns % GROUP_SIZE:
        raise ValueError(f"{columns} columns are not whole groups of {GROUP_SIZE}")
    return weight.view(rows, columns // GROUP_SIZE, GROUP_SIZE)


def _rounded(groups: Tensor, scales: Tensor) -> Tensor:
    return (groups / scales.float()).round().clamp(LOWEST, HIGHEST)


def _best_scales(groups: Tensor) -> Tensor:
    """Pick for each group of [out, groups, 128] the clipping with the least squared error: [out, groups, 1].

    The error is taken with the scale as it will be stored, after its own rounding to BF16.
    """
    largest = groups.abs().amax(dim=2, keepdim=True)
    best_scales = torch.zeros_like(largest, dtype=torch.bfloat16)
    best_errors = torch.full_like(largest, torch.inf)
    for ratio in CLIP_RATIOS:
        scales = (largest * (ratio / HIGHEST)).clamp(min=SMALLEST_SCALE).bfloat16()
        restored = _rounded(groups, scales) * scales.float()
        errors = (restored - groups).square().sum(dim=2, keepdim=True)
        better = errors < best_errors
        best_scales = torch.where(better, scales, best_scales)
        best_errors = torch.where(better, errors, best_errors)
    return best_scales
