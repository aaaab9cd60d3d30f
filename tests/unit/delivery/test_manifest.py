"""The manifest of files: read back as written, canonical, and refused when it lies."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelberth.base.errors import IntegrityError, UsageError
from modelberth.base.units import MIB
from modelberth.delivery.manifest import (
    LEAST_PART_BYTES,
    MAX_PARTS,
    MOST_PART_BYTES,
    PART_BYTES,
    Begun,
    FileEntry,
    FileManifest,
    Part,
    check_part_bytes,
    parse_begun,
    parse_manifest,
    part_count,
    parts,
)

SHA, CRC = "0123456789abcdef" * 4, "0123456789abcdef"

names = st.text(st.characters(exclude_characters="/\\:", exclude_categories=["C", "Z"]), min_size=1, max_size=6)
paths = st.lists(names.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=3).map("/".join)
part_sizes = st.sampled_from([PART_BYTES, LEAST_PART_BYTES, LEAST_PART_BYTES + 1, MOST_PART_BYTES])


def hexes(length: int) -> st.SearchStrategy[str]:
    return st.integers(0, 16**length - 1).map(lambda number: f"{number:0{length}x}")


@st.composite
def file_entries(draw: st.DrawFn, part_bytes: int) -> FileEntry:
    around = [0, 1, part_bytes - 1, part_bytes, part_bytes + 1]
    size = draw(st.integers(0, 4 * part_bytes) | st.sampled_from(around))
    count = part_count(size, part_bytes)
    crcs = draw(st.lists(hexes(16), min_size=count, max_size=count))
    return FileEntry(draw(paths), size, draw(hexes(64)), tuple(crcs))


def no_folder_is_a_file(entries: list[FileEntry]) -> bool:
    return not any(one.path.startswith(other.path + "/") for one in entries for other in entries)


@st.composite
def file_manifests(draw: st.DrawFn) -> FileManifest:
    part_bytes = draw(part_sizes)
    entries = draw(
        st.lists(file_entries(part_bytes), max_size=4, unique_by=lambda entry: entry.path).filter(no_folder_is_a_file)
    )
    return FileManifest(tuple(sorted(entries, key=lambda entry: entry.path)), part_bytes)


manifests = file_manifests()

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
        "files": [{"path": "a/b.json", "size": 0, "sha256": SHA, "crc64nvme": [CRC]}],
    }
    assert written.digest == "4e575082f0809743066f3a1f5624c3f7f4ca52b846c6f99650afafe6b10951b3"


@given(manifests)
def test_a_manifest_written_otherwise_has_the_same_digest(written: FileManifest):
    other = json.dumps(json.loads(written.to_json()), sort_keys=True, indent=7).encode()
    assert parse_manifest(other, "here").digest == written.digest


# --- parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part_bytes", [LEAST_PART_BYTES, PART_BYTES])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_parts_around_their_size(part_bytes: int, beyond: int):
    expected = {
        -1: [(0, part_bytes - 1)],
        0: [(0, part_bytes)],
        1: [(0, part_bytes), (part_bytes, 1)],
    }
    size = part_bytes + beyond
    crcs = tuple(f"{number:016x}" for number in range(part_count(size, part_bytes)))
    assert list(parts(FileEntry("a", size, SHA, crcs), part_bytes)) == [
        Part(number, offset, length, crcs[number]) for number, (offset, length) in enumerate(expected[beyond])
    ]


def test_an_empty_file_has_one_part_of_no_bytes():
    assert part_count(0, PART_BYTES) == 1
    assert list(parts(FileEntry("a", 0, SHA, (CRC,)), PART_BYTES)) == [Part(0, 0, 0, CRC)]


@given(st.integers(0, 500), st.integers(1, 64))
def test_parts_cover_a_file_without_gap_or_overlap(size: int, part_bytes: int):
    count = part_count(size, part_bytes)
    found = list(parts(FileEntry("a", size, SHA, tuple(f"{number:016x}" for number in range(count))), part_bytes))
    assert [part.number for part in found] == list(range(count))
    covered = [byte for part in found for byte in range(part.offset, part.offset + part.length)]
    assert covered == list(range(size))
    assert all(part.length == part_bytes for part in found[:-1])
    assert found[-1].length > 0 or size == 0


def test_a_file_that_is_not_hashed_has_no_parts_yet():
    assert list(parts(FileEntry("a", 100, "", ()), PART_BYTES)) == []


@pytest.mark.parametrize(
    ("part_bytes", "largest"),
    [
        (5 * MIB, 0),
        (5 * MIB, MAX_PARTS * 5 * MIB),
        (5120 * MIB, 5 << 40),
        (PART_BYTES, MAX_PARTS * PART_BYTES),
        (5 * MIB + 1, 1),
    ],
)
def test_parts_that_s3_takes(part_bytes: int, largest: int):
    check_part_bytes(part_bytes, largest)


@pytest.mark.parametrize("part_bytes", [-1, 0, 1, 5 * MIB - 1, 5120 * MIB + 1, 1 << 50])
def test_parts_that_s3_does_not_take(part_bytes: int):
    with pytest.raises(UsageError) as caught:
        check_part_bytes(part_bytes, 1)
    assert caught.value.what == f"parts of {part_bytes:,} bytes are not possible"
    assert caught.value.why == "S3 takes parts from 5 MiB to 5120 MiB"


@given(st.integers(LEAST_PART_BYTES, MOST_PART_BYTES), st.integers(1, MAX_PARTS * MOST_PART_BYTES))
def test_a_file_of_too_many_parts_is_refused_with_a_size_that_will_do(part_bytes: int, largest: int):
    if part_count(largest, part_bytes) <= MAX_PARTS:
        check_part_bytes(part_bytes, largest)
        return
    with pytest.raises(UsageError, match="has too many parts") as caught:
        check_part_bytes(part_bytes, largest)
    step = caught.value.next_step
    assert step.startswith("--part-size ")
    assert step.endswith("MiB")
    advised = int(step.removeprefix("--part-size ").removesuffix("MiB")) * MIB
    assert advised > part_bytes
    check_part_bytes(advised, largest)
    assert part_count(largest, advised - MIB) > MAX_PARTS  # the least whole number


# --- what is refused -----------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "b", "size": 3, "sha256": SHA, "crc64nvme": [CRC]} | changes


def document(*files: Any, **changes: Any) -> bytes:
    head = {"schemaVersion": "modelberth.dev/manifest/v1", "partBytes": PART_BYTES}
    return json.dumps(head | {"files": list(files)} | changes).encode()


def without(key: str) -> bytes:
    item = entry()
    del item[key]
    return document(item)


VERSION = "its version is not modelberth.dev/manifest/v1"
NO_MANIFEST = "its JSON is not that of a manifest"
ORDER = "its paths are not sorted and unique"
NONE = "the entry of b has a size or checksum that is none"

LIES: dict[str, tuple[bytes, str]] = {
    "not sorted": (document(entry(), entry(path="a")), ORDER),
    "a path twice": (document(entry(), entry()), ORDER),
    "a path twice, apart": (document(entry(path="a"), entry(), entry(path="a")), ORDER),
    "a file and a folder": (document(entry(path="a"), entry(path="a/b/c")), "a is a file and a folder"),
    "other version": (document(entry(), schemaVersion="modelberth.dev/manifest/v2"), VERSION),
    "no version": (document(entry(), schemaVersion=None), VERSION),
    "parts that are text": (document(entry(), partBytes=str(PART_BYTES)), VERSION),
    "parts that are a boolean": (document(entry(), partBytes=True), VERSION),
    "parts with a fraction": (document(entry(), partBytes=float(PART_BYTES)), VERSION),
    "parts of nothing": (document(entry(), partBytes=0), "parts of 0 bytes are none"),
    "parts that are too small": (document(partBytes=5 * MIB - 1), "parts of 5,242,879 bytes are none"),
    "parts that are too large": (document(partBytes=5120 * MIB + 1), "parts of 5,368,709,121 bytes are none"),
    "no parts": (b'{"schemaVersion": "modelberth.dev/manifest/v1", "files": []}', NO_MANIFEST),
    "checksums of other parts": (document(entry(size=6 * MIB), partBytes=5 * MIB), NONE),
    "files as a mapping": (document(files={}), "it has no list of files"),
    "files as text": (document(files=""), "it has no list of files"),
    "no files": (b'{"schemaVersion": "modelberth.dev/manifest/v1", "partBytes": 67108864}', NO_MANIFEST),
    "file that is text": (document("b"), NO_MANIFEST),
    "file that is a list": (document([]), NO_MANIFEST),
    "file that is nothing": (document(None), NO_MANIFEST),
    "no path": (without("path"), NO_MANIFEST),
    "no size": (without("size"), NO_MANIFEST),
    "no SHA-256": (without("sha256"), NO_MANIFEST),
    "no checksums": (without("crc64nvme"), NO_MANIFEST),
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
    "too many checksums": (document(entry(crc64nvme=[CRC, CRC])), NONE),
    "no checksum for an empty file": (document(entry(size=0, crc64nvme=[])), NONE),
    "checksum of another kind": (document(entry(crc64nvme=["89abcdef"])), NONE),
    "checksum too long": (document(entry(crc64nvme=[CRC + "0"])), NONE),
    "checksum that is no number": (document(entry(crc64nvme=["0x123456789abcdg"])), NONE),
    "checksum as a number": (document(entry(crc64nvme=[1])), NONE),
    "checksums as a mapping": (document(entry(crc64nvme={CRC: 1})), NONE),
    "checksums as a number": (document(entry(crc64nvme=1)), NO_MANIFEST),
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


# --- a delivery that has begun -------------------------------------------------------------------------


@given(st.lists(paths, max_size=4).map(tuple), st.text(), st.booleans())
def test_what_has_begun_reads_back_as_written(begun_paths: tuple[str, ...], identity: str, cleared: bool):
    begun = Begun(begun_paths, identity, cleared)
    assert parse_begun(begun.to_json(), "here") == begun


def test_the_fields_of_what_has_begun_are_fixed():
    """Another release may go on with it."""
    assert json.loads(Begun(("a", "b/c"), "x", cleared=True).to_json()) == {
        "schemaVersion": "modelberth.dev/begun/v1", "identity": "x", "cleared": True, "paths": ["a", "b/c"],
    }  # fmt: skip


def begun_document(**changes: Any) -> bytes:
    sound = {"schemaVersion": "modelberth.dev/begun/v1", "identity": "x", "cleared": False, "paths": ["a"]}
    return json.dumps({key: value for key, value in (sound | changes).items() if value is not ...}).encode()


NOT_BEGUN = {
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "not UTF-8": b"\xff",
    "nested deeply": b"[" * 100_000,
    "cut short": begun_document()[:-2],
    "the manifest of files": document(entry()),
    "other version": begun_document(schemaVersion="modelberth.dev/begun/v2"),
    "no version": begun_document(schemaVersion=...),
    "no identity": begun_document(identity=...),
    "identity that is a number": begun_document(identity=5),
    "not said whether it is cleared": begun_document(cleared=...),
    "cleared as a number": begun_document(cleared=1),
    "cleared as text": begun_document(cleared="true"),
    "no paths": begun_document(paths=...),
    "paths as text": begun_document(paths="ab"),
    "paths as a mapping": begun_document(paths={"a": 1}),
    "path that is a number": begun_document(paths=["a", 5]),
    "path that is nothing": begun_document(paths=[None]),
}


@pytest.mark.parametrize("content", NOT_BEGUN.values(), ids=NOT_BEGUN)
def test_what_has_not_begun_like_this_is_refused(content: bytes):
    with pytest.raises(IntegrityError, match="what an earlier delivery has left cannot be read") as caught:
        parse_begun(content, "s3://models/a/.modelberth/begun.json")
    assert caught.value.where == "s3://models/a/.modelberth/begun.json"
    assert caught.value.next_step == "remove it"


@pytest.mark.parametrize("path", ["../b", "/etc/passwd", "a//b", "", "a\\b", "a\n"])
def test_what_has_begun_names_no_path_that_leads_elsewhere(path: str):
    """Its files are removed by name."""
    with pytest.raises(IntegrityError, match="is not safe"):
        parse_begun(begun_document(paths=["a", path]), "here")


@settings(max_examples=80)
@given(st.binary(max_size=40), st.integers(0, len(begun_document())))
def test_any_bytes_have_begun_or_are_an_integrity_error(content: bytes, place: int):
    sound = begun_document()
    for changed in (content, sound[:place] + content + sound[place:]):
        with suppress(IntegrityError):
            begun = parse_begun(changed, "here")
            assert parse_begun(begun.to_json(), "here") == begun
