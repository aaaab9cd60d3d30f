"""`berth lint`: exit codes by the worst, the forms, fixes on disk, and files that are no manifests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
BERTH = Path(sys.executable).with_name("berth")
ORIGINAL = ROOT / "tests" / "data" / "lint" / "original"
EXAMPLE = ROOT / "examples" / "step-05-llm-on-vllm"
OLD_PROFILE = "apiVersion: infrastructure.opendatahub.io/v1alpha1\nkind: HardwareProfile\nmetadata: {name: p}\n"
LOOSE = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: nginx}]\n"


def test_the_original_has_at_least_a_dozen_defects(berth):
    done = berth("lint", ORIGINAL, "-o", "json")
    assert done.returncode == 23
    found = json.loads(done.stdout)
    assert len({each["id"] for each in found["findings"]}) >= 12
    assert found["schemaVersion"] == "modelberth.dev/lint/v1"


def test_our_own_tree_has_none(berth):
    done = berth("lint", EXAMPLE / "gitops", "--platform", "rhoai:3.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nothing found in 14 files")


def test_a_finding_says_where_what_and_how(berth, tmp_path):
    (tmp_path / "p.yaml").write_text(OLD_PROFILE)
    done = berth("lint", tmp_path / "p.yaml")
    assert done.returncode == 21
    assert done.stdout.splitlines() == [
        f"{tmp_path}/p.yaml:1:13  low  MB-LINT-704  a hardware profile of the old version: v1alpha1 is deprecated",
        "  fix: write infrastructure.opendatahub.io/v1   (--fix writes it)",
        "1 low in 1 file (1 object); --fix writes 1 of them.",
    ]


def test_the_worst_decides(berth, tmp_path):
    (tmp_path / "a.yaml").write_text(OLD_PROFILE)
    (tmp_path / "b.yaml").write_text(LOOSE)
    assert berth("lint", tmp_path).returncode == 22
    assert berth("lint", tmp_path, "--select", "MB-LINT-704").returncode == 21
    ignored = [word for number in (501, 503, 605, 704) for word in ("--ignore", f"MB-LINT-{number}")]
    assert berth("lint", tmp_path, *ignored).returncode == 0


def test_fix_writes_what_is_safe_and_says_it(berth, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("# mine\n" + OLD_PROFILE)
    path.chmod(0o640)
    done = berth("lint", path, "--fix")
    assert done.returncode == 0
    assert "fixed" in done.stdout
    assert path.read_text() == "# mine\n" + OLD_PROFILE.replace("v1alpha1", "v1")
    assert berth("lint", path, "--fix").stdout.startswith("nothing found")


def test_a_dry_run_says_what_it_would_write_and_writes_nothing(berth, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(OLD_PROFILE)
    done = berth("lint", path, "--fix", "--dry-run")
    assert done.returncode == 21
    assert done.stdout.startswith("would fix")
    assert path.read_text() == OLD_PROFILE
    assert berth("lint", path, "--dry-run").returncode == 2


def test_standard_input_and_lists():
    profile = {"apiVersion": "infrastructure.opendatahub.io/v1alpha1", "kind": "HardwareProfile"}
    both = json.dumps({"kind": "List", "apiVersion": "v1", "items": [profile]})
    done = subprocess.run([BERTH, "lint", "-"], input=both, capture_output=True, text=True, check=False)
    assert done.returncode == 21
    assert "<stdin>:1:" in done.stdout


def test_sarif_names_files_and_lines(berth):
    done = berth("lint", ORIGINAL, "-o", "sarif")
    results = json.loads(done.stdout)["runs"][0]["results"]
    place = results[0]["locations"][0]["physicalLocation"]
    line = Path(place["artifactLocation"]["uri"]).read_text().splitlines()[place["region"]["startLine"] - 1]
    assert line.strip()


def test_a_file_that_cannot_be_read_is_said_and_the_others_are_checked(berth, tmp_path):
    (tmp_path / "a.yaml").write_text("a: [\n")
    (tmp_path / "b.yaml").write_text(OLD_PROFILE)
    (tmp_path / "c.yaml").write_text("metadata:\n  name: {{ .Values.name }}\n")
    (tmp_path / "d.yaml").write_bytes(b"a: \xff\n")
    done = berth("lint", tmp_path)
    assert done.returncode == 2
    assert "MB-LINT-704" in done.stdout
    said = done.stderr.splitlines()
    assert said[0].startswith(f"{tmp_path}/a.yaml:")
    assert said[1].startswith(f"{tmp_path}/c.yaml:2:1: this is a template")
    assert said[2].startswith(f"{tmp_path}/d.yaml:1:")


def test_a_folder_that_leads_into_itself(berth, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "p.yaml").write_text(OLD_PROFILE)
    (tmp_path / "twice.yaml").symlink_to(tmp_path / "a" / "p.yaml")
    done = berth("lint", tmp_path)
    assert done.stdout.count("MB-LINT-704") == 1


def test_a_link_out_of_the_folder_is_neither_read_nor_fixed(berth, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.yaml").write_text(OLD_PROFILE)
    (tmp_path / "in" / "link.yaml").symlink_to(tmp_path / "out.yaml")
    (tmp_path / "in" / "nowhere.yaml").symlink_to(tmp_path / "gone.yaml")
    done = berth("lint", tmp_path / "in", "--fix")
    assert (done.returncode, done.stdout) == (0, "nothing found in 0 files (0 objects).")
    assert (tmp_path / "out.yaml").read_text() == OLD_PROFILE
    assert berth("lint", tmp_path / "in" / "link.yaml").returncode == 21


def test_a_chat_template_is_no_helm_template(berth, tmp_path):
    template = "{{- bos_token }}\n    {% if tools %}\n"
    (tmp_path / "c.yaml").write_text(f"kind: ConfigMap\ndata:\n  chat.jinja: |\n    {template}")
    (tmp_path / "helm.yaml").write_text('name: {{ include "x" . }}\n')
    done = berth("lint", tmp_path)
    assert done.returncode == 2
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [f"{tmp_path}/helm.yaml:1:1"]
    assert "this is a template" in done.stderr


def test_an_overlay_alone_knows_its_base_and_takes_its_patches_for_no_objects(berth, tmp_path):
    base, overlay = tmp_path / "base", tmp_path / "overlays" / "prod"
    base.mkdir()
    overlay.mkdir(parents=True)
    (base / "kustomization.yaml").write_text("resources: []\n")
    (overlay / "crd.json").write_text("{}")
    (overlay / "kustomization.yaml").write_text(
        "resources: [../../base, crd.json, ../../gone]\npatches: [{path: replicas.yaml}]\n"
    )
    (overlay / "replicas.yaml").write_text(
        "kind: InferenceService\nmetadata: {name: m}\nspec: {predictor: {minReplicas: 2, model: {runtime: vllm}}}\n"
    )
    done = berth("lint", overlay, "-o", "json")
    assert [each["message"] for each in json.loads(done.stdout)["findings"]] == ["../../gone is not there"]


def test_the_context_that_the_original_cut_for_nothing(berth):
    config = ROOT / "tests/data/model-configs/Mistral-Small-24B-Instruct-2501-quantized.w4a16.json"
    done = berth("lint", ORIGINAL, "--model", f"mistral-small-24b={config}", "--select", "MB-LINT-903", "-o", "json")
    (found,) = json.loads(done.stdout)["findings"]
    assert found["message"].startswith("4,096 tokens are allowed; ")


def test_a_release_alone_says_which_flags_it_knows(berth, tmp_path):
    (tmp_path / "s.yaml").write_text(
        "kind: InferenceService\nmetadata: {name: m}\n"
        "spec: {predictor: {model: {runtime: vllm, args: [--enable-log-requests]}}}\n"
    )
    assert "MB-LINT-208" in berth("lint", tmp_path, "--vllm", "0.9.1").stdout
    assert "MB-LINT-208" not in berth("lint", tmp_path, "--vllm", "0.11.2").stdout


def test_a_model_says_whether_it_fits(berth, tmp_path):
    shutil.copytree(EXAMPLE / "gitops", tmp_path / "gitops")
    config = ROOT / "tests/data/model-configs/Mistral-Small-24B-Instruct-2501.json"
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    model = f"mistral-small-24b={tmp_path / 'config.json'}"
    done = berth("lint", tmp_path / "gitops", "--platform", "rhoai:3.0", "--model", model)
    assert done.returncode == 23
    assert "mistral-small-24b on 1 x L4: weights take 43.9" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Name a file or a folder"),
        (("nowhere",), "there is no such file or folder"),
        ((str(EXAMPLE), "--platform", "rhoai:2.0"), "known: rhoai:3.0"),
        ((str(EXAMPLE), "--vllm", "banana"), "is no vLLM version"),
        ((str(EXAMPLE), "--select", "MB-LINT-999"), "no rule is named"),
        ((str(EXAMPLE), "--model", "nobody=x"), "no service is named 'nobody'"),
        ((str(EXAMPLE), "--model", "nobody"), "is not SERVICE=MODEL"),
    ],
)
def test_a_wrong_use_says_what_there_is(berth, arguments, says):
    done = berth("lint", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_the_documentation_lists_every_rule(berth):
    rules = json.loads(berth("lint", "--rules", "-o", "json").stdout)["rules"]
    documented = (ROOT / "docs" / "lint.md").read_text()
    for each in rules:
        assert f"| {each['id']} | {each['severity']} | {each['title']} |" in documented
    assert len(rules) == documented.count("| MB-LINT-")
