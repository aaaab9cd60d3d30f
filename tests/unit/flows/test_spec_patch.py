"""A fix is written into berth.yaml so that its keys change and not one other byte of it does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.base.errors import Conflict, SpecError
from modelberth.base.yamlio import read_document
from modelberth.flows.spec_patch import patched
from modelberth.spec.reading import read_stack
from modelberth.spec.services import services

SPEC = """\
# The stack of the team.
apiVersion: modelberth.dev/v1alpha1
kind: Stack
metadata: {name: s}
platform: {kind: rhoai, version: "3.0"}
pools:
  - {name: p, gpu: NVIDIA-L4, count: 1}
storage: {s3: {bucket: models}}
models:
- name: m
  variants:
    - name: a   # the first
      weights: s3://models/a/
      pool: p
      # longest request
      maxModelLen: 32768   # tokens
    - name: b
      weights: s3://models/b/
      pool: p
      engineArgs:
        # one at a time
        max-num-seqs: 1
      dtype: "bfloat16"
    - {name: c, weights: "s3://models/c/", pool: p}
    - name: d
      weights: s3://models/d/
      pool: p
      engineArgs: {max-num-seqs: 1}
    - name: e
      weights: s3://models/e/
      pool: p
      engineArgs: {}
"""


def write(name: str, patch: dict, text: str = SPEC) -> tuple[str, tuple[str, ...]]:
    content = text.encode()
    found = next(each for each in services(read_stack(content, "berth.yaml")) if each.variant.name == name)
    changed, lines = patched(content, "berth.yaml", found, patch)
    return changed.decode(), lines


def test_a_value_is_replaced_and_its_comment_stays():
    text, lines = write("a", {"maxModelLen": 28160})
    assert text == SPEC.replace("maxModelLen: 32768   # tokens", "maxModelLen: 28160   # tokens")
    assert lines == ("models[0].variants[0].maxModelLen: 32768 -> 28160",)


def test_a_key_is_added_below_one_that_is_there():
    text, lines = write("a", {"gpuMemoryUtilization": 0.85})
    assert text == SPEC.replace(
        "- name: a   # the first\n", "- name: a   # the first\n      gpuMemoryUtilization: 0.85\n"
    )
    assert lines == ("models[0].variants[0].gpuMemoryUtilization: not set -> 0.85",)


def test_flags_of_the_engine():
    text, _ = write("b", {"engineArgs.max-num-seqs": 8, "engineArgs.enforce-eager": True})
    assert text == SPEC.replace(
        "        max-num-seqs: 1\n      dtype", "        max-num-seqs: 8\n        enforce-eager: true\n      dtype"
    )
    text, _ = write("a", {"engineArgs.enforce-eager": True})
    added = "- name: a   # the first\n      engineArgs:\n        enforce-eager: true\n"
    assert text == SPEC.replace("- name: a   # the first\n", added)


def test_mappings_in_braces():
    text, _ = write("c", {"maxModelLen": 8})
    assert text == SPEC.replace("{name: c,", "{maxModelLen: 8, name: c,")
    text, _ = write("d", {"engineArgs.enforce-eager": True})
    assert text == SPEC.replace("{max-num-seqs: 1}", "{enforce-eager: true, max-num-seqs: 1}")


def test_what_cannot_be_written_safely_is_left_to_people():
    with pytest.raises(Conflict) as refused:
        write("e", {"engineArgs.enforce-eager": True})
    assert refused.value.exit_code == 5


def test_what_would_be_no_spec_is_not_written():
    with pytest.raises(SpecError):
        write("a", {"maxModelLen": -3})
    with pytest.raises(SpecError):
        write("a", {"nonsense": 3})


def test_what_is_so_already_changes_nothing():
    assert write("a", {"maxModelLen": 32768}) == (SPEC, ())


def test_line_ends_and_byte_order_mark_stay():
    text = "\ufeff" + SPEC.replace("\n", "\r\n")
    changed, _ = write("a", {"gpuMemoryUtilization": 0.85, "maxModelLen": 8}, text)
    assert changed.startswith("\ufeff#")
    assert changed.count("\r\n") == changed.count("\n") == text.count("\n") + 1


@settings(max_examples=40)
@given(
    st.sampled_from("abcd"),
    st.fixed_dictionaries(
        {},
        optional={
            "maxModelLen": st.integers(1, 10**6),
            "gpuMemoryUtilization": st.floats(0.1, 1).map(lambda share: round(share, 3)),
            "dtype": st.sampled_from(["auto", "float16"]),
            "servedName": st.text("abc: #'\"{}[]-?&*!|>%@`", min_size=1, max_size=12).filter(str.strip),
            "engineArgs.max-num-seqs": st.integers(1, 999),
            "engineArgs.tool-call-parser": st.sampled_from(["no", "1e3", "a: b", "mistral"]),
        },
    ),
)
def test_exactly_the_patch_is_what_the_file_says_afterwards(name, patch):
    text, _ = write(name, patch)
    before, after = (read_document(each.encode(), "x").data for each in (SPEC, text))
    index = "abcd".index(name)
    variant = before["models"][0]["variants"][index]
    for key, value in patch.items():
        if "." in key:
            variant.setdefault("engineArgs", {})[key.partition(".")[2]] = value
        else:
            variant[key] = value
    assert after == before
