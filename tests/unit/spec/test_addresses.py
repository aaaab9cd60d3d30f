"""Addresses: what is taken, what is refused, and that the text of one reads back as the same."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.spec.addresses import (
    FolderAddress,
    HubAddress,
    LayoutAddress,
    OciAddress,
    S3Address,
    parse_place,
    parse_source,
    parse_weights,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://models/a/b/", S3Address("models", "a/b/")),
        ("s3://models/a", S3Address("models", "a/")),
        ("s3://models/a//", S3Address("models", "a/")),
        ("s3://models/Aa-0_.!*'()/b", S3Address("models", "Aa-0_.!*'()/b/")),
        ("s3://my.models/...", S3Address("my.models", ".../")),
        ("s3://models", S3Address("models", "")),
        ("s3://models/", S3Address("models", "")),
        ("oci://quay.io/acme/a:1", OciAddress("quay.io", "acme/a", "1", "")),
        ("oci://quay.io/a", OciAddress("quay.io", "a", "latest", "")),
        ("oci://localhost:5000/a:1", OciAddress("localhost:5000", "a", "1", "")),
        ("oci://[::1]:5000/a:1", OciAddress("[::1]:5000", "a", "1", "")),
        ("oci://[::99999]/a:1", OciAddress("[::99999]", "a", "1", "")),
        ("oci://localhost:65535/a:1", OciAddress("localhost:65535", "a", "1", "")),
        (f"oci://quay.io/a@{DIGEST}", OciAddress("quay.io", "a", "", DIGEST)),
        (f"oci://quay.io/a:1@{DIGEST}", OciAddress("quay.io", "a", "1", DIGEST)),
    ],
)
def test_weights(text: str, address: S3Address | OciAddress):
    assert parse_weights(text) == parse_source(text) == parse_place(text) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://mistralai/Mistral-7B-v0.1", HubAddress("mistralai/Mistral-7B-v0.1", "")),
        ("hf://a/b@refs/pr/1", HubAddress("a/b", "refs/pr/1")),
        ("./models/a", FolderAddress("./models/a")),
        ("/models/a b", FolderAddress("/models/a b")),
        ("C:models", FolderAddress("C:models")),
    ],
)
def test_sources(text: str, address: HubAddress | FolderAddress):
    assert parse_source(text) == parse_place(text) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("oci-layout:images:1", LayoutAddress("images", "1")),
        ("oci-layout:./my images/a:v1.0_x-y", LayoutAddress("./my images/a", "v1.0_x-y")),
        ("oci-layout:/srv/images:latest", LayoutAddress("/srv/images", "latest")),
        ("oci-layout:a:b:c", LayoutAddress("a:b", "c")),
        ("oci-layout:~/images:1", LayoutAddress("~/images", "1")),
        (f"oci-layout:a:{'x' * 128}", LayoutAddress("a", "x" * 128)),
    ],
)
def test_image_layouts(text: str, address: LayoutAddress):
    assert parse_place(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["oci-layout:", "oci-layout:images", "oci-layout::1", "oci-layout:images:",
                                  "oci-layout:images:-x", "oci-layout:images:a/b", "oci-layout:images:1\n",
                                  "oci-layout:a\0b:1", f"oci-layout:a:{'x' * 129}"])  # fmt: skip
def test_malformed_image_layouts(text: str):
    with pytest.raises(UsageError, match="is no image in a layout") as caught:
        parse_place(text)
    assert caught.value.why == "expected oci-layout:PATH:tag"


@pytest.mark.parametrize("text", ["OCI-LAYOUT:a:1", "./oci-layout:a:1", "oci-layout"])
def test_what_only_looks_like_an_image_layout_is_a_folder(text: str):
    assert parse_place(text) == FolderAddress(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://", "'' is no bucket name"),
        ("s3://Models/a", "'Models' is no bucket name"),
        ("s3://ab/a", "'ab' is no bucket name"),
        (f"s3://{'a' * 64}/a", "is no bucket name"),
        ("s3://-models/a", "'-models' is no bucket name"),
        ("s3://models/a//b", "has a prefix that no store and shell agree on"),
        ("s3://models//a", "has a prefix that no store and shell agree on"),
        ("s3://models/../a", "has a prefix that no store and shell agree on"),
        ("s3://models/a/.", "has a prefix that no store and shell agree on"),
        ("s3://models/a b", "has a prefix that no store and shell agree on"),
        ("s3://models/a/b:1/", "has a prefix that no store and shell agree on"),
        ("s3://models/a\\b", "has a prefix that no store and shell agree on"),
        ("s3://models/modèle/", "has a prefix that no store and shell agree on"),
        ("s3://models/a\n", "has a prefix that no store and shell agree on"),
        ("s3://models/a?x=$HOME", "has a prefix that no store and shell agree on"),
        ("s3://mo..dels/a", "'mo..dels' is no bucket name"),
        ("oci://localhost:65536/a", "'65536' is no port"),
        ("oci://[::1]:99999/a:1", "'99999' is no port"),
        ("oci://quay.io", "is no image address"),
        ("oci:///a", "is no image address"),
        ("oci://quay.io/Acme", "is no image address"),
        ("oci://quay.io/a/../b", "is no image address"),
        ("oci://quay.io/a b", "is no image address"),
        ("oci://quay.io/a:-x", "'-x' is no image tag"),
        ("oci://quay.io/a:1/b", "'1/b' is no image tag"),
        (f"oci://quay.io/a:{'x' * 129}", "is no image tag"),
        ("oci://quay.io/a@sha256:abc", "'sha256:abc' is no digest"),
        (f"oci://quay.io/a@{DIGEST.upper()}", "is no digest"),
        ("oci://quay.io/a:1\n", "is no image tag"),
    ],
)
def test_malformed_weights(text: str, message: str):
    for parse in (parse_weights, parse_source, parse_place):
        with pytest.raises(UsageError) as caught:
            parse(text)
        assert message in caught.value.what


@pytest.mark.parametrize("text", ["", "models/a", "hf://a/b", "S3://models/a", "https://host/a", " s3://models/a"])
def test_weights_are_s3_or_oci_only(text: str):
    with pytest.raises(UsageError, match="is no weights address") as caught:
        parse_weights(text)
    assert caught.value.why == "expected s3://bucket/prefix/ or oci://registry/name:tag"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gs://bucket/a", "'gs://' is no known source"),
        ("S3://models/a", "'S3://' is no known source"),
        ("hf://mistral", "is no Hub address"),
        ("hf://a/b/c", "is no Hub address"),
        ("hf://../..", "is no Hub address"),
        ("hf://é/b", "is no Hub address"),
        ("hf://a/b@re vision", "is no Hub address"),
        ("hf://a/b@x:y", "is no Hub address"),
        ("hf://a/b@é", "is no Hub address"),
        ("hf://a/b@main\n", "is no Hub address"),
        ("hf://a/b@main?x", "is no Hub address"),
        ("", "a source folder needs a name"),
        ("a\0b", "a source folder needs a name"),
    ],
)
def test_malformed_sources(text: str, message: str):
    for parse in (parse_source, parse_place):
        with pytest.raises(UsageError) as caught:
            parse(text)
        assert message in caught.value.what


# A secret key with a slash in it, as AWS makes them.
CANARY = "CANARY/7MDENG+bPx"


@pytest.mark.parametrize(
    "text",
    [
        f"s3://AKIA:{CANARY}@models/a/",
        f"s3://{CANARY}@models",
        f"oci://user:{CANARY}@quay.io/a:1",
        f"oci://{CANARY}@quay.io/a",
        f"https://user:{CANARY}@host/a",
        f"hf://{CANARY}@mistralai/Mistral",
        f"hf://user:{CANARY}@mistralai/a@main",
    ],
)
@pytest.mark.parametrize("parse", [parse_weights, parse_source, parse_place])
def test_a_password_in_an_address_is_never_shown(parse, text: str):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert not {piece for piece in CANARY.split("/") if piece in f"{caught.value.what} {caught.value.why}"}


# --- properties ----------------------------------------------------------------------------------------

buckets = st.from_regex(r"[a-z0-9]([a-z0-9-]|\.(?!\.)){1,12}[a-z0-9]", fullmatch=True)
prefix_parts = st.from_regex(r"[A-Za-z0-9!_.*'()-]{1,6}", fullmatch=True).filter(lambda part: part not in {".", ".."})
prefixes = st.lists(prefix_parts, max_size=4).map(lambda items: "".join(f"{item}/" for item in items))
folders = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
ports = st.just("") | st.integers(0, 65535).map(":{}".format)
registries = st.tuples(st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", fullmatch=True), ports).map("".join)
repositories = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)?(/[a-z0-9]+){0,2}", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
revisions = st.just("") | st.from_regex(r"[A-Za-z0-9_./-]{1,20}", fullmatch=True)

addresses = st.one_of(
    st.builds(S3Address, buckets, prefixes),
    st.builds(OciAddress, registries, repositories, tags, st.just("") | digests),
    st.builds(OciAddress, registries, repositories, st.just(""), digests),
    st.builds(
        HubAddress,
        st.from_regex(r"\A[A-Za-z0-9][\w.-]{0,9}/[A-Za-z0-9][\w.-]{0,9}\Z").filter(str.isascii),
        revisions,
    ),
    st.builds(FolderAddress, folders),
)
places = addresses | st.builds(LayoutAddress, folders, tags)
starts = ["", "s3://", "oci://", "hf://", "gs://", "s3://models/", "oci://quay.io/a", "hf://a/b", "oci-layout:a:"]
anything = st.tuples(
    st.sampled_from(starts),
    st.text(max_size=20) | st.text("ab/.:@-_[]A0", max_size=20),
).map("".join)


@given(addresses)
def test_the_text_of_an_address_reads_back_as_the_same(address):
    assert parse_source(str(address)) == parse_place(str(address)) == address


@given(places)
def test_the_text_of_a_place_reads_back_as_the_same(address):
    assert parse_place(str(address)) == address


@given(anything, st.sampled_from([parse_source, parse_weights, parse_place]))
@example("s3://models//", parse_weights)
def test_any_text_is_an_address_or_a_usage_error(text: str, parse):
    try:
        address = parse(text)
    except UsageError:
        return
    assert parse(str(address)) == address


@given(buckets, st.text("ab./", max_size=10) | prefixes, st.sampled_from(["", "/"]))
def test_an_s3_prefix_ends_in_a_slash_so_that_no_neighbour_is_listed(bucket: str, prefix: str, end: str):
    try:
        address = parse_weights(f"s3://{bucket}/{prefix}{end}")
    except UsageError:
        return
    assert isinstance(address, S3Address)
    assert address.prefix == "" or address.prefix.endswith("/")
    assert not address.prefix.startswith("/")
    assert address.key("config.json") == f"{address.prefix}config.json"
