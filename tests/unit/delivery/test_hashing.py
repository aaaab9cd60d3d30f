"""Hashes of what passes by: the same as those of slow references, however the bytes are cut."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.adapters.hashing import PartHasher, crc64nvme, crc_text
from modelberth.delivery.manifest import FileEntry, part_count

POLYNOMIAL = 0x9A6C9329AC4BC9B5  # of CRC-64/NVME, reflected (NVM Express base specification)
ONES = (1 << 64) - 1


def reference(content: bytes) -> int:
    """CRC-64/NVME, a bit at a time."""
    value = ONES
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
    return value ^ ONES


def cut(content: bytes, places: list[int]) -> list[bytes]:
    """Content in pieces, some of them empty."""
    edges = [0, *sorted(min(place, len(content)) for place in places), len(content)]
    return [content[begin:end] for begin, end in itertools.pairwise(edges)]


def test_the_check_value_of_the_catalogue():
    assert reference(b"123456789") == crc64nvme(b"123456789") == 0xAE8B14860A799888
    assert crc_text(crc64nvme(b"123456789")) == "ae8b14860a799888"


def test_nothing_has_the_checksum_zero():
    assert crc64nvme(b"") == 0
    assert crc_text(0) == "0" * 16


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_a_checksum_goes_on_where_it_was(content: bytes, places: list[int]):
    value = 0
    for piece in cut(content, places):
        value = crc64nvme(piece, value)
    assert value == crc64nvme(content) == crc64nvme(memoryview(content)) == reference(content)
    assert int(crc_text(value), 16) == value
    assert len(crc_text(value)) == 16


@settings(max_examples=150)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4), st.integers(1, 70))
def test_parts_are_hashed_however_the_bytes_come(content: bytes, places: list[int], part_bytes: int):
    hasher = PartHasher(part_bytes)
    for piece in cut(content, places):
        hasher.update(memoryview(bytearray(piece)))
    parts = [content[begin : begin + part_bytes] for begin in range(0, max(1, len(content)), part_bytes)]
    expected = tuple(f"{reference(part):016x}" for part in parts)
    assert len(expected) == part_count(len(content), part_bytes)
    assert (hasher.size, hasher.crcs) == (len(content), expected)
    assert hasher.entry("a/b") == FileEntry("a/b", len(content), hashlib.sha256(content).hexdigest(), expected)


@given(st.binary(min_size=1, max_size=100), st.integers(1, 40))
def test_a_hasher_can_be_asked_on_the_way(content: bytes, part_bytes: int):
    hasher = PartHasher(part_bytes)
    for number in range(len(content)):
        hasher.update(content[number : number + 1])
        whole = PartHasher(part_bytes)
        whole.update(content[: number + 1])
        assert hasher.entry("a") == whole.entry("a")


def test_an_empty_stream_is_an_empty_file():
    assert PartHasher().entry("a") == FileEntry("a", 0, hashlib.sha256(b"").hexdigest(), ("0" * 16,))


@pytest.mark.parametrize("flipped", [0, 7, 8, 63, 64, 8 * 299 + 7])
def test_a_flipped_bit_changes_the_checksum(flipped: int):
    content = bytearray(300)
    before = crc64nvme(content)
    content[flipped // 8] ^= 1 << flipped % 8
    assert crc64nvme(content) != before
