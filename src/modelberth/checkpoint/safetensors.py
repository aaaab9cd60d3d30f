"""Safetensors headers and the shard index, read strictly: what lies is refused, with the file and the reason.

The format: 8 bytes little-endian header length, that many bytes of JSON, then the tensors' bytes back to back.
Source: the format description of the safetensors project. Its reader caps the header at 100 MB, wants offsets
contiguous from 0 and the file to end where the last tensor ends; so do we.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelberth.base.errors import IntegrityError

MAX_HEADER_BYTES = 100_000_000
LENGTH_BYTES = 8
MAX_DIMENSIONS = 64  # what torch takes; it bounds the work that one made-up shape can cause
MAX_NUMBER = 2**63 - 1
INDEX_NAME = "model.safetensors.index.json"

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
"""Bits of one element by safetensors dtype name."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        name: as in the checkpoint, `model.layers.0.mlp.up_proj.weight`.
        dtype: safetensors dtype name.
        shape: sizes by dimension; () for a scalar.
        begin: first byte after the header.
        end: byte after the last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes stored."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """The header of one safetensors file: its tensors in file order, and the whole file's size in bytes."""

    tensors: tuple[Tensor, ...]
    file_bytes: int


def header_length(first_bytes: bytes, file_bytes: int, name: str) -> int:
    """The JSON header's length in bytes, from the first 8 bytes of a file.

    Raises:
        IntegrityError: the file is too short for the header it announces.
    """
    if len(first_bytes) < LENGTH_BYTES:
        raise _broken(name, f"it has {file_bytes:,} bytes, fewer than the {LENGTH_BYTES} of a header length")
    length = int(struct.unpack("<Q", first_bytes[:LENGTH_BYTES])[0])
    if length > MAX_HEADER_BYTES:
        raise _broken(name, f"its header claims {length:,} bytes; at most {MAX_HEADER_BYTES:,} are allowed")
    if LENGTH_BYTES + length > file_bytes:
        raise _broken(name, f"its header claims {length:,} bytes, the file has {file_bytes:,} in all")
    return length


def parse_header(header: bytes, file_bytes: int, name: str) -> Header:
    """Read and check a JSON header.

    Args:
        header: the JSON bytes, without the 8 bytes of length.
        file_bytes: size of the whole file.
        name: the file's name, for messages.

    Raises:
        IntegrityError: not JSON, wrong types, offsets with gaps or overlaps, a shape that does not agree with
            its bytes, or a file that is shorter or longer than its tensors.
    """
    entries = _json_object(header, name)
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(name, "its __metadata__ is not a mapping of text to text")
    tensors = tuple(
        sorted((_tensor(key, value, name) for key, value in entries.items()), key=lambda t: (t.begin, t.end))
    )
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            raise _broken(name, f"tensor {tensor.name} begins at byte {tensor.begin:,}, expected {position:,}")
        position = tensor.end
    expected = LENGTH_BYTES + len(header) + position
    if expected != file_bytes:
        raise _broken(
            name,
            f"it has {file_bytes:,} bytes; its header describes {expected:,}",
            truncated=file_bytes < expected,
        )
    return Header(tensors, file_bytes)


def _tensor(key: str, value: Any, name: str) -> Tensor:
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _broken(name, f"the entry of tensor {key} is not dtype, shape and data_offsets") from None
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _broken(name, f"tensor {key} has the unknown dtype {dtype!r}")
    sound = isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS
    if not sound or not all(_is_count(number) for number in (begin, end, *shape)) or begin > end:
        raise _broken(name, f"tensor {key} has a shape or an offset that is no count")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != (end - begin) * 8:
        raise _broken(name, f"tensor {key} has {end - begin:,} bytes; {dtype} {shape} needs {-(-bits // 8):,}")
    return Tensor(key, dtype, tuple(shape), begin, end)


def _is_count(number: Any) -> bool:
    """Whether this is a whole number of a size that a file can have; a bool is an int too."""
    return type(number) is int and 0 <= number <= MAX_NUMBER


def check_index(index: bytes, headers: Mapping[str, Header]) -> None:
    """Check a shard index against the headers of the files that are there.

    Args:
        index: bytes of `model.safetensors.index.json`.
        headers: file name -> header, for every safetensors file of the folder.

    Raises:
        IntegrityError: a shard is missing, a tensor is in another file than the index says, in none, or in two.
    """
    weight_map = _json_object(index, INDEX_NAME).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise _broken(INDEX_NAME, "it has no weight_map of tensor names to file names")
    missing = sorted(set(weight_map.values()) - set(headers))
    if missing:
        raise _broken(INDEX_NAME, f"it names files that are not there: {', '.join(missing)}")
    present: dict[str, str] = {}
    for file, header in headers.items():
        for tensor in header.tensors:
            if tensor.name in present:
                raise _broken(INDEX_NAME, f"tensor {tensor.name} is in {present[tensor.name]} and in {file}")
            present[tensor.name] = file
    for name, file in weight_map.items():
        if present.get(name) != file:
            found = present.get(name, "no file")
            raise _broken(INDEX_NAME, f"tensor {name} should be in {file} and is in {found}")
    unlisted = sorted(set(present) - set(weight_map))
    if unlisted:
        raise _broken(INDEX_NAME, f"it does not list {len(unlisted)} tensors that are there, {unlisted[0]} among them")


def _json_object(content: bytes, name: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise _broken(name, "a key stands twice in its JSON")
        return result

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _broken(name, "its JSON cannot be read") from error
    if not isinstance(value, dict):
        raise _broken(name, "its JSON is not an object")
    return value


def _broken(name: str, why: str, *, truncated: bool = False) -> IntegrityError:
    what = f"{name} is truncated" if truncated else f"{name} is not a sound safetensors checkpoint"
    return IntegrityError(what, where=name, why=why, next_step="download or copy the file again; nothing was started")
