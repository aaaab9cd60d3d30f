"""The manifest of files: read back as written, canonical, and refused when it lies."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelberth.base.errors import IntegrityError
from modelberth.delivery import manifest
from modelberth.delivery.manifest import PART_BYTES, FileEntry, FileManifest, Part, parse_manifest, part_count, parts

SHA, CRC = "0123456789abcdef" * 4, "89abcdef"

names = st.text(st.characters(exclude_characters="/\\:", exclude_categories=["C", "Z"]), min_size=1, max_size=6)
paths = st.lists(names.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=3).map("/".join)
sizes = st.integers(0, 4 * PART_BYTES) | st.sampled_from([0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1])


def hexes(length: int) -> st.SearchStrategy[str]:
    return st.integers(0, 16**length - 1).map(lambda number: f"{number:0{length}x}")


@st.composite
def file_entries(draw: st.DrawFn, path: st.SearchStrategy[str] = paths) -> FileEntry:
    size = draw(sizes)
    count = part_count(size)
    return FileEntry(draw(path), size, draw(hexes(64)), tuple(draw(st.lists(hexes(8), min_size=count, max_size=count))))


manifests = st.lists(file_entries(), max_size=4, unique_by=lambda entry: entry.path).map(
    lambda entries: FileManifest(tuple(sorted(entries, key=lambda entry: entry.path)))
)

# --- round trip ----------------------------------------------------------------------------------------


@given(manifests)
def test_a_manifest_reads_back_as_written(written: FileManifest):
    read = parse_manifest(written.to_json(), "here")
    assert read == written
    assert read.to_json() == written.to_json()
    assert read.digest == written.digest
    assert read.size == sum(entry.size for entry in written.files)


@given(manifests, manifests)
def test_only_the_same_files_have_the_same_bytes(one: FileManifest, other: FileManifest):
    assert (one == other) == (one.to_json() == other.to_json()) == (one.digest == other.digest)


def test_the_bytes_of_a_manifest_are_fixed():
    """Deliveries made by an earlier release must keep their digest."""
    written = FileManifest((FileEntry("a/b.json", 0, SHA, (CRC,)),))
    assert json.loads(written.to_json()) == {
        "schemaVersion": "modelberth.dev/manifest/v1",
        "partBytes": 67_108_864,
        "files": [{"path": "a/b.json", "size": 0, "sha256": SHA, "crc32": [CRC]}],
    }
    assert written.digest == "ab8bdcae9284220dc7ad32fef6368754bcc911c8913a513139e96719c09d9965"


@given(manifests)
def test_a_manifest_written_otherwise_has_the_same_digest(written: FileManifest):
    other = json.dumps(json.loads(written.to_json()), sort_keys=True, indent=7).encode()
    assert parse_manifest(other, "here").digest == written.digest


# --- parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, [(0, 0)]),
        (1, [(0, 1)]),
        (PART_BYTES - 1, [(0, PART_BYTES - 1)]),
        (PART_BYTES, [(0, PART_BYTES)]),
        (PART_BYTES + 1, [(0, PART_BYTES), (PART_BYTES, 1)]),
        (2 * PART_BYTES, [(0, PART_BYTES), (PART_BYTES, PART_BYTES)]),
    ],
)
def test_parts_around_their_size(size: int, expected: list[tuple[int, int]]):
    crcs = tuple(f"{number:08x}" for number in range(part_count(size)))
    assert list(parts(FileEntry("a", size, SHA, crcs))) == [
        Part(number, offset, length, crcs[number]) for number, (offset, length) in enumerate(expected)
    ]


@given(st.integers(0, 500), st.integers(1, 64))
def test_parts_cover_a_file_without_gap_or_overlap(size: int, part_bytes: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "PART_BYTES", part_bytes)
        count = part_count(size)
        found = list(parts(FileEntry("a", size, SHA, tuple(f"{number:08x}" for number in range(count)))))
    assert [part.number for part in found] == list(range(count))
    covered = [byte for part in found for byte in range(part.offset, part.offset + part.length)]
    assert covered == list(range(size))
    assert all(part.length == part_bytes for part in found[:-1])
    assert found[-1].length > 0 or size == 0


# --- what is refused -----------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "b", "size": 3, "sha256": SHA, "crc32": [CRC]} | changes


def document(*files: Any, **changes: Any) -> bytes:
    head = {"schemaVersion": "modelberth.dev/manifest/v1", "partBytes": PART_BYTES}
    return json.dumps(head | {"files": list(files)} | changes).encode()


def without(key: str) -> bytes:
    item = entry()
    del item[key]
    return document(item)


VERSION = "its version is not modelberth.dev/manifest/v1 with parts of 67,108,864 bytes"
NO_MANIFEST = "its JSON is not that of a manifest"
ORDER = "its paths are not sorted and unique"
NONE = "the entry of b has a size or checksum that is none"

LIES: dict[str, tuple[bytes, str]] = {
    "not sorted": (document(entry(), entry(path="a")), ORDER),
    "a path twice": (document(entry(), entry()), ORDER),
    "a path twice, apart": (document(entry(path="a"), entry(), entry(path="a")), ORDER),
    "a file and a folder": (document(entry(path="a"), entry(path="a/b/c")), "a is a file and a folder"),
    "other version": (document(entry(), schemaVersion="modelberth.dev/manifest/v2"), VERSION),
    "other parts": (document(entry(), partBytes=PART_BYTES // 2), VERSION),
    "no version": (document(entry(), schemaVersion=None), VERSION),
    "files as a mapping": (document(files={}), "it has no list of files"),
    "files as text": (document(files=""), "it has no list of files"),
    "no files": (b'{"schemaVersion": "modelberth.dev/manifest/v1", "partBytes": 67108864}', NO_MANIFEST),
    "file that is text": (document("b"), NO_MANIFEST),
    "file that is a list": (document([]), NO_MANIFEST),
    "file that is nothing": (document(None), NO_MANIFEST),
    "no path": (without("path"), NO_MANIFEST),
    "no size": (without("size"), NO_MANIFEST),
    "no SHA-256": (without("sha256"), NO_MANIFEST),
    "no checksums": (without("crc32"), NO_MANIFEST),
    "path that is a number": (document(entry(path=5)), NO_MANIFEST),
    "path that is nothing": (document(entry(path=None)), NO_MANIFEST),
    "size as text": (document(entry(size="3")), NONE),
    "size that is a boolean": (document(entry(size=True)), NONE),
    "size with a fraction": (document(entry(size=3.0)), NONE),
    "size that is no number": (document(entry(size=float("nan"))), NONE),
    "negative size": (document(entry(size=-3)), NONE),
    "SHA-256 too short": (document(entry(sha256=SHA[1:])), NONE),
    "SHA-256 in capitals": (document(entry(sha256=SHA.upper())), NONE),
    "SHA-256 that is no text": (document(entry(sha256=None)), NONE),
    "too few checksums": (document(entry(size=PART_BYTES + 1)), NONE),
    "too many checksums": (document(entry(crc32=[CRC, CRC])), NONE),
    "no checksum for an empty file": (document(entry(size=0, crc32=[])), NONE),
    "checksum too long": (document(entry(crc32=[CRC + "0"])), NONE),
    "checksum that is no number": (document(entry(crc32=["0x12345g"])), NONE),
    "checksum as a number": (document(entry(crc32=[1])), NONE),
    "checksums as a mapping": (document(entry(crc32={CRC: 1})), NONE),
    "checksums as a number": (document(entry(crc32=1)), NO_MANIFEST),
    "list": (b"[]", NO_MANIFEST),
    "nothing": (b"", NO_MANIFEST),
    "null": (b"null", NO_MANIFEST),
    "not UTF-8": (b'{"\xff": 1}', NO_MANIFEST),
    "nested deeply": (b"[" * 100_000, NO_MANIFEST),
    "number of 5,000 digits": (b"9" * 5000, NO_MANIFEST),
    "cut short": (document(entry())[:-3], NO_MANIFEST),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_manifest_that_lies_is_refused(lie: tuple[bytes, str]):
    content, why = lie
    with pytest.raises(IntegrityError, match="the manifest of files cannot be used") as caught:
        parse_manifest(content, "s3://models/a/")
    assert (caught.value.where, caught.value.why) == ("s3://models/a/", why)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../b", "a/../../b", "a//b", "./a", "a\\b", "C:b", "a\0", "a\n", "\ud800"]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str):
    with pytest.raises(IntegrityError, match="is not safe"):
        parse_manifest(document(entry(path=path)), "here")


scalars = (
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=4) | st.just([]) | st.just({})
)


@settings(max_examples=200)
@given(st.data(), manifests)
def test_a_manifest_with_another_value_is_read_as_it_is_or_refused(data: st.DataObject, written: FileManifest):
    assume(written.files)
    changed = json.loads(written.to_json())
    place = data.draw(st.sampled_from([changed, *changed["files"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(scalars)
    content = json.dumps(changed).encode()
    with suppress(IntegrityError):
        read = parse_manifest(content, "here")
        assert json.loads(read.to_json()) == changed


@settings(max_examples=80)
@given(st.binary(max_size=40))
def test_any_bytes_are_an_integrity_error(content: bytes):
    with pytest.raises(IntegrityError):
        parse_manifest(content, "here")
