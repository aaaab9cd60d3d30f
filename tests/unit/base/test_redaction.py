"""No secret gets through, whatever it is wrapped in; what is no secret stays as it is."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.redaction import REDACTED, Redactor

CANARY = "c4n4ry-Zx81/q+Secret=Value"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefghijklmnop.qrstuv", f"Authorization: Bearer {REDACTED}"),
        ("curl -H 'Authorization: Basic dXNlcjpwYXNz' x", f"curl -H 'Authorization: Basic {REDACTED}' x"),
        ("export HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz", f"export HF_TOKEN={REDACTED}"),
        ("AWS_SECRET_ACCESS_KEY=foo+bar/baz next", f"AWS_SECRET_ACCESS_KEY={REDACTED} next"),
        ('{"access_key_id": "minio123", "n": 1}', f'{{"access_key_id": "{REDACTED}", "n": 1}}'),
        ("https://user:pw@host/x?X-Amz-Signature=abcdef0123&x=1", f"https://{REDACTED}@host/x?X-Amz-Signature={REDACTED}&x=1"),
        ("key AKIAIOSFODNN7EXAMPLE used", f"key {REDACTED} used"),
        ("--api-key sk-local --port 1", f"--api-key {REDACTED} --port 1"),
        ("login sha256~aaaaaaaaaaaaaaaaaaaaaaaaaaaa ok", f"login {REDACTED} ok"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nnext", f"{REDACTED}\nnext"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", REDACTED),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_goes(text: str, expected: str) -> None:
    assert Redactor().text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "GPU KV cache size: 56,032 tokens",
        "max_tokens=200, prompt tokens: 17, total_tokens: 1,024",
        "non-default args: {'model': '/mnt/models', 'max_model_len': 4096}",
        "ValueError: To serve at least one request with the model's max seq len (32768), (5.77 GiB KV cache is needed",
        "tokenizer_mode=auto, trust_remote_code=False, token: none",
        "s3://models/mistral-small-24b/ sha256:ad756c01ec99a99cc7d93401c41b8d92ca96fb1ab7c5262919d818f2be4f3768",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_a_secret_keeps_the_names_of_its_keys_alone() -> None:
    secret = {
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "minio", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": CANARY}},
        "data": {"AWS_SECRET_ACCESS_KEY": CANARY}, "stringData": {"other": CANARY},
    }  # fmt: skip
    listed = {"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": [secret]}
    for document in (secret, listed, {"kind": "List", "items": [secret]}):
        assert CANARY not in json.dumps(Redactor().document(document))
    assert Redactor().document(secret)["data"] == {"AWS_SECRET_ACCESS_KEY": REDACTED}


def test_variables_and_fields_go_by_their_names() -> None:
    pod = {"kind": "Pod", "spec": {"containers": [{"env": [
        {"name": "MY_PASSWORD", "value": "plain"}, {"name": "HOME", "value": "/tmp"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token"}}}]}]},
        "status": {"apiKey": "plain"}}  # fmt: skip
    cleaned = Redactor().document(pod)
    assert "plain" not in json.dumps(cleaned)
    assert cleaned["spec"]["containers"][0]["env"][1:] == pod["spec"]["containers"][0]["env"][1:]  # type: ignore[index]


@given(st.text(), st.text())
def test_a_known_value_is_seen_nowhere(before: str, after: str) -> None:
    redactor = Redactor([CANARY, ""])
    for written in (CANARY, b64encode(CANARY.encode()).decode(), "c4n4ry-Zx81%2Fq%2BSecret%3DValue"):
        text = redactor.text(before + written + after)
        assert CANARY not in text
        assert written.rstrip("=") not in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_document_keeps_its_shape(document: object) -> None:
    assert type(Redactor(["known-value"]).document(document)) is type(document)


def test_hostile_text_takes_linear_time() -> None:
    redactor = Redactor([CANARY])
    for text in (
        "token" * 200_000,
        "a://" * 250_000,
        "eyJ" + "a" * 1_000_000,
        "-----BEGIN PRIVATE KEY-----" * 30_000,
        "=" * 1_000_000,
    ):
        assert CANARY not in redactor.text(text)  # and it ends, under the suite's time limit
