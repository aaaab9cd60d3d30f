"""What a run adds to its rules: order, reasons to ignore, safe fixes, and the form that code hosts read."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.errors import Problem, SpecError
from modelberth.base.yamlio import read_documents
from modelberth.findings.lint.run import RULES, fixed, lint
from modelberth.findings.lint.sarif import sarif
from modelberth.findings.lint.world import Manifest, World

ORIGINAL = Path(__file__).parents[3] / "data" / "lint" / "original"
PROFILE = """\
# kept
apiVersion: infrastructure.opendatahub.io/v1alpha1   # old
kind: HardwareProfile
metadata: {name: p}
"""


def run(text: str, source: str = "f.yaml"):
    documents = read_documents(text.encode(), source)
    world = World(tuple(Manifest(each) for each in documents), frozenset({source}))
    return lint(world, {source: text.splitlines()})


# --- the original --------------------------------------------------------------------------------------------


def original() -> list:
    files = {str(path.relative_to(ORIGINAL)): path.read_text() for path in sorted(ORIGINAL.rglob("*.yaml"))}
    manifests = [Manifest(each) for name, text in files.items() for each in read_documents(text.encode(), name)]
    folders = {str(parent): frozenset() for name in files for parent in Path(name).parents}
    world = World(tuple(manifests), frozenset(files), None, {}, folders)
    return list(lint(world, {name: text.splitlines() for name, text in files.items()}))


STEP, BASE = "gitops/step-05-llm-on-vllm/base", "gitops/step-03-private-ai/base"
# Rule, file, and the text of the line that it points to: what the original had wrong.
DEFECTS = [
    (103, f"{BASE}/storage-config.yaml", "name: storage-config"),
    (104, f"{BASE}/storage-config.yaml", "minio-connection: |"),
    (105, f"{STEP}/model-upload/upload-mistral-bf16.yaml", "value: rhoai-secret-key-12345"),
    (204, f"{STEP}/inference/mistral-small-24b.yaml", "- --trust-remote-code"),
    (212, f"{STEP}/inference/mistral-small-24b.yaml", "- name: LD_LIBRARY_PATH"),
    (301, f"{STEP}/inference/mistral-small-24b-tp4.yaml", "tolerations:"),
    (302, f"{STEP}/inference/mistral-small-24b-tp4.yaml", "nodeSelector:"),
    (303, f"{STEP}/inference/mistral-small-24b-tp4.yaml", "tolerations:"),
    (312, f"{BASE}/queue.yaml", "name: default"),
    (404, f"{STEP}/inference/mistral-small-24b.yaml", "model:"),
    (405, f"{STEP}/inference/mistral-small-24b.yaml", "predictor:"),
    (501, f"{STEP}/serving-runtime/vllm-runtime.yaml", "- name: kserve-container"),
    (503, f"{STEP}/serving-runtime/vllm-runtime.yaml", "- name: kserve-container"),
    (504, f"{STEP}/inference/mistral-small-24b.yaml", "networking.kserve.io/visibility: exposed"),
    (601, f"{STEP}/model-registration/seed-job.yaml", "- |"),
    (602, f"{STEP}/model-upload/upload-mistral-bf16.yaml", "- |"),
    (603, f"{STEP}/model-upload/upload-mistral-bf16.yaml", "- |"),
    (604, f"{STEP}/model-upload/upload-mistral-bf16.yaml", "- |"),
    (605, f"{STEP}/model-registration/seed-job.yaml", "image: quay.io/curl/curl"),
    (606, f"{STEP}/model-registration/seed-job.yaml", "spec:"),
    (608, f"{STEP}/model-registration/seed-job.yaml", "ttlSecondsAfterFinished: 3600"),
    (611, f"{STEP}/model-registration/seed-job.yaml", "- |"),
    (612, f"{STEP}/model-registration/seed-job.yaml", "- name: "),
    (707, "gitops/step-07-agents/base/endpoints.yaml", "MISTRAL_TP4: http://mistral-small-24b-tp4.private-ai"),
    (802, f"{STEP}/model-upload/upload-mistral-fp8.yaml", "kind: PersistentVolumeClaim"),
    (805, f"{STEP}/inference/mistral-small-24b.yaml", 'openshift.io/display-name: "Mistral Small 24B FP8'),
]


@pytest.mark.parametrize(("number", "file", "line"), DEFECTS, ids=[f"{number}" for number, _, _ in DEFECTS])
def test_the_originals_defects_are_found_at_their_lines(number: int, file: str, line: str):
    found = [each for each in original() if each.rule.number == number and each.source == file]
    lines = (ORIGINAL / file).read_text().splitlines()
    assert any(line in lines[each.position.line - 1] for each in found)


def test_nothing_else_is_said_of_the_original():
    assert {each.rule.number for each in original()} == {number for number, _, _ in DEFECTS}


# --- ignoring ------------------------------------------------------------------------------------------------


def ignored(text: str) -> list[tuple[int, str | None]]:
    return [(each.rule.number, each.ignored) for each in run(text)]


def test_a_reason_on_the_line_or_above_it():
    assert ignored(PROFILE) == [(704, None)]
    on_line = PROFILE.replace("# old", "# berth-lint: ignore MB-LINT-704 because the operator is old")
    assert ignored(on_line) == [(704, "the operator is old")]
    above = PROFILE.replace("# kept", "# berth-lint: ignore MB-LINT-704, MB-LINT-101: not yet")
    assert ignored(above) == [(704, "not yet")]
    other = PROFILE.replace("# kept", "# berth-lint: ignore MB-LINT-701 because x")
    assert ignored(other) == [(704, None)]


def test_a_reason_in_an_annotation():
    noted = PROFILE.replace("{name: p}", '{name: p, annotations: {modelberth.dev/lint-ignore: "MB-LINT-704: old; X"}}')
    assert ignored(noted) == [(704, "old")]


def test_without_a_reason_that_is_a_finding_too():
    bare = PROFILE.replace("# old", "# berth-lint: ignore MB-LINT-704")
    assert ignored(bare) == [(1, None), (704, "")]


def test_who_does_not_ask_for_reasons_is_not_told():
    bare = PROFILE.replace("# old", "# berth-lint: ignore MB-LINT-704")
    documents = read_documents(bare.encode(), "f.yaml")
    only = [each for each in RULES if each.number == 704]
    found = lint(World(tuple(Manifest(each) for each in documents)), {"f.yaml": bare.splitlines()}, only)
    assert [each.rule.number for each in found] == [704]


# --- fixing --------------------------------------------------------------------------------------------------


def test_a_fix_changes_its_scalar_and_nothing_else():
    text, done = fixed(PROFILE, run(PROFILE))
    assert text == PROFILE.replace("v1alpha1", "v1")
    assert [each.rule.number for each in done] == [704]
    assert run(text) == ()


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_quotes_stay(quote: str):
    text = f"kind: InferenceService\nspec: {{predictor: {{model: {{runtime: vllm, storageUri: {quote}s3://models/m{quote}}}}}}}\n"
    new, _ = fixed(text, run(text))
    assert f"{quote}s3://models/m/{quote}" in new


@pytest.mark.parametrize("written", ["&here s3://models/m", "!!str s3://models/m", ">-\n        s3://models/m"])
def test_what_hangs_on_an_anchor_a_tag_or_several_lines_is_left_to_people(written: str):
    text = f"kind: InferenceService\nspec:\n  predictor:\n    model:\n      args: [--max-model-len=1]\n" \
           f"      storageUri: {written}\n"  # fmt: skip
    (found,) = [each for each in run(text) if each.rule.number == 101]
    assert found.edit is None
    assert fixed(text, [found]) == (text, ())


def test_what_is_ignored_is_not_fixed():
    text = PROFILE.replace("# old", "# berth-lint: ignore MB-LINT-704 because x")
    assert fixed(text, run(text)) == (text, ())


WORDS = st.text(alphabet="ab é\u2028#:-'\"\\n", max_size=20)


@given(WORDS, WORDS)
def test_whatever_stands_around_it_a_fix_keeps(before: str, after: str):
    note = yaml.safe_dump({"note": before}, allow_unicode=True)
    text = f"{note}apiVersion: infrastructure.opendatahub.io/v1alpha1\nkind: HardwareProfile\nend: {after!r}\n"
    try:
        found = run(text)
    except SpecError:
        return
    new, done = fixed(text, found)
    assert new == text.replace("v1alpha1", "v1") or not done


# --- SARIF ---------------------------------------------------------------------------------------------------


def test_sarif_has_rules_places_levels_and_suppressions():
    text = PROFILE + "---\n" + PROFILE.replace("# old", "# berth-lint: ignore MB-LINT-704 because x")
    log = sarif(run(text), RULES, "0.1.0")
    (one,) = log["runs"]
    assert (log["version"], one["tool"]["driver"]["name"]) == ("2.1.0", "berth lint")
    first, second = one["results"]
    rules = one["tool"]["driver"]["rules"]
    assert rules[first["ruleIndex"]]["id"] == first["ruleId"] == "MB-LINT-704"
    assert first["level"] == "note"
    region = first["locations"][0]["physicalLocation"]["region"]
    assert text.splitlines()[region["startLine"] - 1].startswith("apiVersion: infra")
    assert second["suppressions"] == [{"kind": "inSource", "justification": "x"}]
    assert len(rules) == len(RULES)


# What SARIF 2.1.0 (OASIS, 2020) asks of the parts that are written here, and no word besides.
_TEXT = {"type": "object", "properties": {"text": {"type": "string", "minLength": 1}}, "required": ["text"]}
_LEVEL = {"enum": ["none", "note", "warning", "error"]}


def _part(required: list[str], **properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list(of: object, least: int = 0) -> dict[str, object]:
    return {"type": "array", "items": of, "minItems": least}


_URI = {"type": "string", "pattern": r"^[^\s<>\"{}|\\^`]+$"}
_NUMBER = {"type": "integer", "minimum": 1}
_LOCATION = _part(
    [],
    physicalLocation=_part(
        ["artifactLocation", "region"],
        artifactLocation=_part(["uri"], uri=_URI),
        region=_part(["startLine"], startLine=_NUMBER, startColumn=_NUMBER),
    ),
    logicalLocations=_list(_part([], fullyQualifiedName={"type": "string"})),
)
_RULE = _part(
    ["id"], id={"type": "string"}, shortDescription=_TEXT, fullDescription=_TEXT, help=_TEXT,
    defaultConfiguration=_part([], level=_LEVEL), properties={"type": "object"},
)  # fmt: skip
_SUPPRESSION = _part(["kind"], kind={"enum": ["inSource", "external"]}, justification={"type": "string"})
_RESULT = _part(
    ["message"], ruleId={"type": "string"}, ruleIndex={"type": "integer", "minimum": 0}, level=_LEVEL, message=_TEXT,
    locations=_list(_LOCATION, 1), suppressions=_list(_SUPPRESSION),
)  # fmt: skip
_INVOCATION = _part(
    ["executionSuccessful"],
    executionSuccessful={"type": "boolean"},
    toolExecutionNotifications=_list(_part(["message"], level=_LEVEL, message=_TEXT, locations=_list(_LOCATION))),
)
_DRIVER = _part(
    ["name"], name={"type": "string"}, version={"type": "string"}, informationUri=_URI, rules=_list(_RULE),
)  # fmt: skip
_RUN = _part(
    ["tool"], tool=_part(["driver"], driver=_DRIVER), columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    invocations=_list(_INVOCATION), results=_list(_RESULT),
)  # fmt: skip
SARIF = _part(
    ["version", "runs"], **{"$schema": _URI}, version={"const": "2.1.0"}, runs=_list(_RUN, 1),
)  # fmt: skip


def test_sarif_is_of_its_schema():
    text = PROFILE + "---\n" + PROFILE.replace("# old", "# berth-lint: ignore MB-LINT-704 because x")
    problem = Problem(0, 0, "", "it is not UTF-8")
    log = sarif((*original(), *run(text, "a b/<c>.yaml")), RULES, "0.1.0", [("d e.yaml", problem)])
    jsonschema.validate(log, SARIF)
    (invocation,) = log["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    assert invocation["toolExecutionNotifications"][0]["message"] == {"text": "it is not UTF-8"}
    assert log["runs"][0]["results"][-1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == (
        "a%20b/%3Cc%3E.yaml"
    )
