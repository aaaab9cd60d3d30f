"""Safetensors headers and shard indexes: sound ones are taken, and every way of lying is refused."""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelberth.base.errors import IntegrityError
from modelberth.checkpoint.safetensors import (
    DTYPE_BITS,
    INDEX_NAME,
    MAX_HEADER_BYTES,
    Header,
    Tensor,
    check_index,
    header_length,
    parse_header,
)

NAME = "model.safetensors"


def entry(dtype: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# The smallest file that has everything: metadata, a scalar, an empty tensor, and names not in file order.
SOUND = {
    "__metadata__": {"format": "pt"},
    "w": entry("BF16", [2, 3], 4, 16),
    "none": entry("F32", [0, 7], 4, 4),
    "scalar": entry("F32", [], 0, 4),
}

# --- what is taken -------------------------------------------------------------------------------------


def test_a_sound_file_is_read_in_file_order(make, read):
    content = make(SOUND, 16)
    assert read(content) == Header(
        (
            Tensor("scalar", "F32", (), 0, 4),
            Tensor("none", "F32", (0, 7), 4, 4),
            Tensor("w", "BF16", (2, 3), 4, 16),
        ),
        len(content),
    )


@pytest.mark.parametrize("header", [{}, {"__metadata__": {}}, {"__metadata__": None}], ids=json.dumps)
def test_a_file_without_tensors_is_sound(header: dict[str, Any], make, read):
    assert read(make(header, 0)).tensors == ()


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Tensor], bytes]:
    """Tensors, and the file that holds them: any dtypes and shapes, keys in any order, padded with spaces."""
    tensors: list[Tensor] = []
    for name in draw(
        st.lists(st.text(max_size=4).filter(lambda name: name != "__metadata__"), unique=True, max_size=5)
    ):
        dtype = draw(st.sampled_from(sorted(DTYPE_BITS)))
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
        if math.prod(shape) * DTYPE_BITS[dtype] % 8:
            shape = (*shape, 8)
        begin = tensors[-1].end if tensors else 0
        tensors.append(Tensor(name, dtype, shape, begin, begin + math.prod(shape) * DTYPE_BITS[dtype] // 8))
    header = {item.name: entry(item.dtype, item.shape, item.begin, item.end) for item in draw(st.permutations(tensors))}
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    text += b" " * draw(st.integers(0, 8))
    return tensors, struct.pack("<Q", len(text)) + text + bytes(tensors[-1].end if tensors else 0)


@settings(max_examples=100, deadline=None)
@given(files())
def test_every_file_that_is_built_by_the_format_is_read_back(read, file: tuple[list[Tensor], bytes]):
    tensors, content = file
    header = read(content)
    assert sorted(header.tensors, key=lambda tensor: tensor.name) == sorted(tensors, key=lambda tensor: tensor.name)
    assert [tensor.begin for tensor in header.tensors] == sorted(tensor.begin for tensor in tensors)
    assert header.file_bytes == 8 + header_length(content[:8], len(content), NAME) + sum(t.size for t in tensors)


# --- what is refused -----------------------------------------------------------------------------------


def refusal(error: pytest.ExceptionInfo[IntegrityError]) -> str:
    assert error.value.where == NAME
    assert error.value.next_step
    return error.value.why


@pytest.mark.parametrize("length", range(8 + len(json.dumps(SOUND)) + 16))
def test_every_truncation_is_refused(length: int, make, read):
    with pytest.raises(IntegrityError) as caught:
        read(make(SOUND, 16)[:length])
    assert refusal(caught)
    assert ("truncated" in caught.value.what) == (length >= 8 + len(json.dumps(SOUND)))


@pytest.mark.parametrize("extra", [1, 7, 4096])
def test_bytes_after_the_last_tensor_are_refused(extra: int, make, read):
    size = len(make(SOUND, 16))
    with pytest.raises(IntegrityError) as caught:
        read(make(SOUND, 16 + extra))
    assert refusal(caught) == f"it has {size + extra:,} bytes; its header describes {size:,}"
    assert "truncated" not in caught.value.what


@pytest.mark.parametrize(
    ("claimed", "why"),
    [
        (93, "its header claims 93 bytes, the file has 100 in all"),
        (MAX_HEADER_BYTES, "its header claims 100,000,000 bytes, the file has 100 in all"),
        (MAX_HEADER_BYTES + 1, "its header claims 100,000,001 bytes; at most 100,000,000 are allowed"),
        (2**63, "its header claims 9,223,372,036,854,775,808 bytes; at most 100,000,000 are allowed"),
        (2**64 - 1, "its header claims 18,446,744,073,709,551,615 bytes; at most 100,000,000 are allowed"),
    ],
)
def test_a_header_longer_than_its_file_is_refused(claimed: int, why: str):
    with pytest.raises(IntegrityError) as caught:
        header_length(struct.pack("<Q", claimed), 100, NAME)
    assert refusal(caught) == why


def test_the_longest_header_that_is_taken():
    assert header_length(struct.pack("<Q", 92), 100, NAME) == 92
    assert header_length(struct.pack("<Q", MAX_HEADER_BYTES), 8 + MAX_HEADER_BYTES, NAME) == MAX_HEADER_BYTES


FORM = "the entry of tensor x is not dtype, shape and data_offsets"
NO_COUNT = "tensor x has a shape or an offset that is no count"

# Each is one header with one lie in it: the header, the bytes of tensors behind it, why it is refused.
LIES: dict[str, tuple[Any, int, str]] = {
    "overlap": (
        {"a": entry("U8", [8], 0, 8), "x": entry("U8", [8], 4, 12)}, 12, "tensor x begins at byte 4, expected 8",
    ),
    "the same bytes twice": (
        {"a": entry("U8", [8], 0, 8), "x": entry("U8", [8], 0, 8)}, 8, "tensor x begins at byte 0, expected 8",
    ),
    "gap": (
        {"a": entry("U8", [8], 0, 8), "x": entry("U8", [8], 9, 17)}, 17, "tensor x begins at byte 9, expected 8",
    ),
    "gap at the start": ({"x": entry("U8", [8], 1, 9)}, 9, "tensor x begins at byte 1, expected 0"),
    "empty tensor past the end": ({"x": entry("U8", [0], 5, 5)}, 0, "tensor x begins at byte 5, expected 0"),
    "end before begin": ({"x": entry("U8", [8], 8, 0)}, 8, NO_COUNT),
    "negative offset": ({"x": entry("U8", [8], -8, 0)}, 0, NO_COUNT),
    "two negative sizes": ({"x": entry("U8", [-2, -4], 0, 8)}, 8, NO_COUNT),
    "boolean offset": ({"x": entry("U8", [1], False, True)}, 1, NO_COUNT),
    "boolean size": ({"x": entry("U8", [True], 0, 1)}, 1, NO_COUNT),
    "fraction": ({"x": entry("U8", [1.0], 0, 1)}, 1, NO_COUNT),
    "not a number": ({"x": entry("U8", [float("nan")], 0, 1)}, 1, NO_COUNT),
    "infinite": ({"x": entry("U8", [1], 0, float("inf"))}, 1, NO_COUNT),
    "size as text": ({"x": entry("U8", ["1"], 0, 1)}, 1, NO_COUNT),
    "shape as text": ({"x": entry("U8", "", 0, 1)}, 1, NO_COUNT),
    "shape as a mapping": ({"x": entry("U8", {}, 0, 1)}, 1, NO_COUNT),
    "shape of a number": ({"x": entry("U8", 1, 0, 1)}, 1, NO_COUNT),
    "more dimensions than torch has": ({"x": entry("U8", [1] * 65, 0, 1)}, 1, NO_COUNT),
    "number of 4,000 digits": ({"x": entry("U8", [10**4000], 0, 10**4000)}, 1, NO_COUNT),
    "shape that wraps round at 64 bits": (
        {"x": entry("U8", [2**32, 2**32, 2], 0, 0)}, 0,
        "tensor x has 0 bytes; U8 [4294967296, 4294967296, 2] needs 36,893,488,147,419,103,232",
    ),
    "shape that needs more": ({"x": entry("BF16", [3], 0, 4)}, 4, "tensor x has 4 bytes; BF16 [3] needs 6"),
    "shape that needs less": ({"x": entry("BF16", [1], 0, 4)}, 4, "tensor x has 4 bytes; BF16 [1] needs 2"),
    "half a byte": ({"x": entry("F4", [3], 0, 1)}, 1, "tensor x has 1 bytes; F4 [3] needs 2"),
    "unknown dtype": ({"x": entry("Q4_K", [1], 0, 1)}, 1, "tensor x has the unknown dtype 'Q4_K'"),
    "dtype in lower case": ({"x": entry("u8", [1], 0, 1)}, 1, "tensor x has the unknown dtype 'u8'"),
    "dtype as a list": ({"x": entry(["U8"], [1], 0, 1)}, 1, "tensor x has the unknown dtype ['U8']"),
    "no dtype": ({"x": {"shape": [1], "data_offsets": [0, 1]}}, 1, FORM),
    "no shape": ({"x": {"dtype": "U8", "data_offsets": [0, 1]}}, 1, FORM),
    "no offsets": ({"x": {"dtype": "U8", "shape": [1]}}, 1, FORM),
    "three offsets": ({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, 1, FORM),
    "offsets that are no list": ({"x": {"dtype": "U8", "shape": [1], "data_offsets": 1}}, 1, FORM),
    "tensor that is a list": ({"x": ["U8", [1], [0, 1]]}, 1, FORM),
    "tensor that is nothing": ({"x": None}, 0, FORM),
    "metadata that is a tensor": ({"__metadata__": entry("U8", [1], 0, 1)}, 1, "its __metadata__ is not a mapping"),
    "metadata that is a list": ({"__metadata__": [1]}, 0, "its __metadata__ is not a mapping"),
    "key twice": (b'{"x": 1, "x": 2}', 0, "a key stands twice in its JSON"),
    "key twice, written in two ways": (b'{"x": 1, "\\u0078": 2}', 0, "a key stands twice in its JSON"),
    "key of a tensor twice": (
        b'{"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1], "shape": [1]}}', 1,
        "a key stands twice in its JSON",
    ),
    "not UTF-8": (b'{"\xff": {}}', 0, "its JSON cannot be read"),
    "UTF-16": ("{}".encode("utf-16"), 0, "its JSON cannot be read"),
    "byte order mark": (b"\xef\xbb\xbf{}", 0, "its JSON cannot be read"),
    "nested deeply": (b'{"a":' * 100_000, 0, "its JSON cannot be read"),
    "number of 5,000 digits": (b'{"x": ' + b"9" * 5000 + b"}", 0, "its JSON cannot be read"),
    "more than one value": (b"{}{}", 0, "its JSON cannot be read"),
    "nothing": (b"", 0, "its JSON cannot be read"),
    "zero bytes": (bytes(64), 0, "its JSON cannot be read"),
    "list": ([], 0, "its JSON is not an object"),
    "null": (None, 0, "its JSON is not an object"),
    "text": ("{}", 0, "its JSON is not an object"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused(lie: tuple[Any, int, str], make, read):
    header, body, why = lie
    with pytest.raises(IntegrityError) as caught:
        read(make(header, body))
    assert refusal(caught).startswith(why)


numbers = st.integers(-2, 40) | st.sampled_from([2**31, 2**63, 2**64, 10**4200]) | st.floats() | st.booleans()
oddities = st.none() | numbers | st.text(max_size=3) | st.lists(numbers, max_size=3) | st.just({})
entries = oddities | st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([*DTYPE_BITS, "X"]) | oddities,
        "shape": st.lists(numbers, max_size=3) | oddities,
        "data_offsets": st.tuples(numbers, numbers) | oddities,
        "extra": oddities,
    },
)
headers = st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), entries, max_size=3) | oddities


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=64) | headers.map(lambda header: json.dumps(header).encode()), st.integers(0, 2**70))
@example(b"{" * 50_000, 50_008)
def test_any_header_is_taken_or_an_integrity_error(header: bytes, file_bytes: int):
    with suppress(IntegrityError):
        found = parse_header(header, file_bytes, NAME)
        assert sum(tensor.size for tensor in found.tensors) == file_bytes - 8 - len(header)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_file_or_an_integrity_error(read, content: bytes):
    with suppress(IntegrityError):
        assert read(content).file_bytes == len(content)


# --- the index of shards -------------------------------------------------------------------------------

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(*names: str) -> Header:
    tensors = tuple(Tensor(name, "U8", (1,), index, index + 1) for index, name in enumerate(names))
    return Header(tensors, 100)


SHARDS = {ONE: shard("a", "b"), TWO: shard("c")}
MAP = {"a": ONE, "b": ONE, "c": TWO}


def index_of(weight_map: Any) -> bytes:
    return json.dumps({"metadata": {"total_size": 3}, "weight_map": weight_map}).encode()


def test_an_index_that_agrees_with_its_shards_is_taken():
    check_index(index_of(MAP), SHARDS)


# The index, the shards, why it is refused.
INDEX_LIES: dict[str, tuple[bytes, dict[str, Header], str]] = {
    "names a shard that is missing": (index_of(MAP), {ONE: SHARDS[ONE]}, f"it names files that are not there: {TWO}"),
    "names a tensor that is nowhere": (
        index_of(MAP | {"d": TWO}), SHARDS, f"tensor d should be in {TWO} and is in no file",
    ),
    "names the wrong shard": (index_of(MAP | {"b": TWO}), SHARDS, f"tensor b should be in {TWO} and is in {ONE}"),
    "two tensors exchanged": (
        index_of({"a": TWO, "b": ONE, "c": ONE}), SHARDS, f"tensor a should be in {TWO} and is in {ONE}",
    ),
    "leaves tensors out": (
        index_of({"a": ONE}), SHARDS, "it does not list 2 tensors that are there, b among them",
    ),
    "leaves a shard out": (
        index_of({"a": ONE, "b": ONE}), SHARDS, "it does not list 1 tensors that are there, c among them",
    ),
    "one tensor in two shards": (
        index_of(MAP), SHARDS | {TWO: shard("c", "a")}, f"tensor a is in {ONE} and in {TWO}",
    ),
    "one tensor in two shards, the index naming the later": (
        index_of(MAP | {"a": TWO}), SHARDS | {TWO: shard("c", "a")}, f"tensor a is in {ONE} and in {TWO}",
    ),
    "leads outside": (index_of(MAP | {"c": f"../{TWO}"}), SHARDS, f"it names files that are not there: ../{TWO}"),
    "file that is no text": (index_of(MAP | {"c": 2}), SHARDS, "it has no weight_map"),
    "map that is a list": (index_of([ONE]), SHARDS, "it has no weight_map"),
    "no map": (b"{}", SHARDS, "it has no weight_map"),
    "key twice": (b'{"weight_map": {"a": "x", "a": "y"}}', SHARDS, "a key stands twice in its JSON"),
    "list": (b"[]", SHARDS, "its JSON is not an object"),
    "nested deeply": (b"[" * 100_000, SHARDS, "its JSON cannot be read"),
    "not UTF-8": (b"\xff", SHARDS, "its JSON cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("lie", INDEX_LIES.values(), ids=INDEX_LIES)
def test_an_index_that_lies_is_refused(lie: tuple[bytes, dict[str, Header], str]):
    index, shards, why = lie
    with pytest.raises(IntegrityError) as caught:
        check_index(index, shards)
    assert caught.value.where == INDEX_NAME
    assert caught.value.why.startswith(why)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=40)
    | oddities.map(index_of)
    | st.dictionaries(st.text("abc", max_size=1), oddities).map(index_of)
)
def test_any_index_is_an_integrity_error_unless_it_agrees(index: bytes):
    with pytest.raises(IntegrityError):
        check_index(index, SHARDS)
