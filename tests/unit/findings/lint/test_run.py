"""What a run adds to its rules: order, reasons to ignore, safe fixes, and the form that code hosts read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.errors import SpecError
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
