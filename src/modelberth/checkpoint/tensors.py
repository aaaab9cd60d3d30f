"""The tensors of a checkpoint, grouped: read from safetensors headers, or derived from the shape where there are none.

Layers repeat, so a checkpoint of 80 layers is a dozen groups. Both ways lead to the same groups with the same names,
so whatever counts bytes does not ask where they came from, and one can be held against the other.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelberth.checkpoint.safetensors import DTYPE_BITS, Header

_LAYER = re.compile(r"(?:(?<=\.)|^)(?:layers|h|blocks|resblocks|block|layer)\.(\d+)(?=\.)")
_EXPERT = re.compile(r"(?<=\.experts\.)(\d+)(?=\.)")
_NOT_LOADED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "position_ids", "rope.freqs")
"""Names of tensors that engines make for themselves and do not load."""


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that differ only in the layer, and in the expert, they belong to.

    Attributes:
        name: with `*` for the number of the layer and of the expert: `model.layers.*.mlp.experts.*.w1.weight`.
        dtype: safetensors dtype name.
        shape: of one tensor.
        layers: layers that have it; 1 for what stands outside the layers.
        experts: tensors in one layer: the experts, or 1.
        packed: weights in one element where it holds several; 0 where it holds one, or where only the dtype tells.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layers: int = 1
    experts: int = 1
    packed: int = 0

    @property
    def elements(self) -> int:
        """Elements of one tensor."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def tensor_bytes(self) -> int:
        """Bytes of one tensor as stored."""
        return self.elements * DTYPE_BITS[self.dtype] // 8

    @property
    def total_bytes(self) -> int:
        """Bytes of all of them as stored."""
        return self.tensor_bytes * self.layers * self.experts


def packed_weights(dtype: str, bits: int) -> int:
    """Weights of so many bits that one element of a packed tensor holds; 0 for dtypes that nothing is packed into."""
    return {"I32": 32, "U8": 8}.get(dtype, 0) // bits


def grouped(
    headers: Mapping[str, Header], decoder_layers: int, weight_bits: int | None = None
) -> tuple[TensorGroup, ...]:
    """The groups of a checkpoint as its headers list it, in file order.

    Args:
        headers: file name -> header.
        decoder_layers: layers that the engine loads; what stands beyond (multi-token prediction) is left out.
        weight_bits: bits of a packed weight; None where that is not known.
    """
    counts: Counter[tuple[str, str, tuple[int, ...]]] = Counter()
    experts: defaultdict[tuple[str, str, tuple[int, ...]], set[str]] = defaultdict(set)
    for header in headers.values():
        for tensor in header.tensors:
            if _is_loaded(tensor.name, decoder_layers):
                key = (pattern(tensor.name), tensor.dtype, tensor.shape)
                counts[key] += 1
                experts[key].update(_EXPERT.findall(tensor.name))
    groups = []
    for key, number in counts.items():
        members = max(1, len(experts[key]))
        # Layers that are not all alike (quantised in part) have experts whose number is no multiple: count each.
        layers, members = (number // members, members) if number % members == 0 else (number, 1)
        packed = packed_weights(key[1], weight_bits) if weight_bits and _is_packed(key[0], key[1]) else 0
        groups.append(TensorGroup(*key, layers, members, packed))
    return tuple(groups)


def pattern(name: str) -> str:
    """A tensor's name with `*` for the numbers of its layer and its expert."""
    return _EXPERT.sub("*", _LAYER.sub(lambda match: match[0][: -len(match[1])] + "*", name))


def _is_loaded(name: str, decoder_layers: int) -> bool:
    if name.endswith(_NOT_LOADED) or name.startswith("mtp.") or ".mtp." in name:
        return False
    found = re.search(r"^(?:language_model\.)?(?:model\.)?(?:language_model\.)?layers\.(\d+)\.", name)
    return found is None or int(found[1]) < decoder_layers


def parameters(groups: Iterable[TensorGroup]) -> int:
    """Model parameters in a checkpoint: what is packed counts as what it holds; scales and zero points hold none."""
    return sum(_parameters(group) * group.layers * group.experts for group in groups)


_PACKED = {"I32": (".weight_packed", ".qweight"), "U8": (".weight_packed", "_blocks", ".weight")}
"""Endings of tensors whose elements hold several weights, by dtype."""
_HELPERS = (
    "_scale", "_scale_inv", "_scale_2", "_shape", "_zero_point", "_g_idx", ".scales", ".qzeros", ".g_idx", "_scales",
    "weight_global_scale", "input_global_scale", ".absmax", ".SCB", ".quant_map", ".nested_absmax",
)  # fmt: skip


def _is_packed(name: str, dtype: str) -> bool:
    return name.endswith(_PACKED.get(dtype, ()))


def _parameters(group: TensorGroup) -> int:
    if group.name.endswith(_HELPERS):
        return 0
    if _is_packed(group.name, group.dtype):
        return group.elements * (group.packed or packed_weights(group.dtype, 4))
    return group.elements
