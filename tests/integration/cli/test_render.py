"""`berth render`: a stack as a tree for Git or as objects for kubectl, and KServe's storage container."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[3] / "examples" / "step-05-llm-on-vllm"
NAME = "step-05-llm-on-vllm"

IMAGE = "registry.example/modelberth:0.1.0"
WANTED = ("render", "--storage-container", "--image", IMAGE)


def test_yaml_and_json_are_the_same_object(berth):
    as_yaml, as_json = berth(*WANTED), berth(*WANTED, "--format", "json")
    for done in (as_yaml, as_json):
        assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(as_json.stdout)
    assert YAML(typ="safe").load(as_yaml.stdout) == made
    assert (made["kind"], made["metadata"]) == ("ClusterStorageContainer", {"name": "modelberth-s3"})
    assert made["spec"]["container"]["image"] == IMAGE


def test_the_first_lines_say_what_it_is(berth):
    assert berth(*WANTED).stdout.splitlines()[:2] == [
        "apiVersion: serving.kserve.io/v1alpha1",
        "kind: ClusterStorageContainer",
    ]


def test_the_same_bytes_every_time_and_nothing_kept(berth):
    assert berth(*WANTED).stdout == berth(*WANTED).stdout
    assert not berth.state.exists()


def test_the_name_can_be_chosen(berth):
    done = berth(*WANTED, "--name", "verified-s3", "--format", "json")
    assert json.loads(done.stdout)["metadata"]["name"] == "verified-s3"


def test_every_option_can_be_a_variable(berth):
    done = berth(
        "render",
        BERTH_RENDER_STORAGE_CONTAINER="1",
        BERTH_RENDER_IMAGE=IMAGE,
        BERTH_RENDER_NAME="n",
        BERTH_RENDER_FORMAT="json",
    )
    assert json.loads(done.stdout)["metadata"]["name"] == "n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--image", IMAGE), "--storage-container"),
        (("--storage-container",), "--image"),
        (("--storage-container", "--image", "registry.example/modelberth"), "not pinned"),
        (("--storage-container", "--image", "modelberth"), "registry/name:tag"),
        ((*WANTED[1:], "--name", "Not A Name"), "name of the storage container"),
        ((*WANTED[1:], "berth.yaml"), "leave SPEC out"),
        (("--format", "wide"), "'wide' is not one of"),
        (("--check",), "give -o DIR"),
        (("-o", "x", "--check", "--with-secrets"), "write nothing"),
        (("nowhere.yaml",), "there is no such file"),
        ((EXAMPLE / "berth.yaml", "-o", "x" * 300), "File name too long"),
    ],
)
def test_a_wrong_use_says_what_there_is(berth, arguments, says):
    done = berth("render", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert says in done.stderr


def test_a_password_before_the_registry_is_not_shown(berth):
    done = berth("render", "--storage-container", "--image", "user:canary-password@registry.example/modelberth:1")
    assert done.returncode == 2
    assert "canary-password" not in done.stderr


# --- a stack -------------------------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path) -> Path:
    """The example's file in a folder of its own."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(EXAMPLE / "berth.yaml", folder)
    return folder / "berth.yaml"


def written(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] in {"gitops", "steps", "secrets"}
    }


def test_the_committed_example_is_what_is_rendered(berth, stack):
    done = berth("render", stack, "-o", stack.parent)
    assert done.returncode == 0, done.stderr
    assert written(stack.parent) == written(EXAMPLE)
    assert berth("render", EXAMPLE / "berth.yaml", "-o", EXAMPLE, "--check").returncode == 0


def test_the_second_time_nothing_changes(berth, stack):
    first = berth("render", stack, "-o", stack.parent)
    assert first.stdout.splitlines()[-1] == "15 files: 15 created."
    again = berth("render", stack, "-o", stack.parent)
    assert (again.returncode, again.stdout) == (0, "15 files: 15 unchanged.")


def test_without_a_folder_all_objects_go_to_standard_output(berth, stack):
    done = berth("render", stack)
    objects = list(YAML(typ="safe").load_all(done.stdout))
    kinds = [each["kind"] for each in objects]
    assert kinds.index("ClusterQueue") < kinds.index("ServingRuntime") < kinds.index("InferenceService")
    assert json.loads(berth("render", stack, "--format", "json").stdout)["items"] == objects
    assert berth("render", stack, "--format", "name").stdout.splitlines()[0] == "ResourceFlavor/nvidia-l4-1gpu"
    assert sorted(stack.parent.iterdir()) == [stack]


def test_check_and_diff_write_nothing_and_say_what_would_change(berth, stack):
    check = berth("render", stack, "-o", stack.parent, "--check")
    assert check.returncode == 20
    assert "Nothing was written" in check.stdout
    assert written(stack.parent) == {}
    berth("render", stack, "-o", stack.parent)
    stack.write_text(stack.read_text().replace("maxModelLen: 4096", "maxModelLen: 8192"))
    before = written(stack.parent)
    diff = berth("render", stack, "-o", stack.parent, "--diff")
    assert diff.returncode == 0
    assert "-        - --max-model-len=4096\n+        - --max-model-len=8192\n" in diff.stdout
    assert berth("render", stack, "-o", stack.parent, "--check").returncode == 20
    assert written(stack.parent) == before


def test_check_sees_a_record_that_is_not_of_the_files(berth, stack):
    berth("render", stack, "-o", stack.parent)
    (stack.parent / "gitops" / NAME / ".berth.json").unlink()
    check = berth("render", stack, "-o", stack.parent, "--check")
    assert (check.returncode, check.stdout) == (20, "15 files: 15 unchanged. Nothing was written.")
    assert f"the record is not of these files: gitops/{NAME}/.berth.json" in check.stderr
    assert json.loads(berth("render", stack, "-o", stack.parent, "--check", "--format", "json").stdout)["recordDiffers"]
    berth("render", stack, "-o", stack.parent)
    assert berth("render", stack, "-o", stack.parent, "--check").returncode == 0


@pytest.mark.skipif(shutil.which("patch") is None, reason="`patch` is missing")
@pytest.mark.parametrize("edit", ["mine", "mine\n", "a\u2028b\x0cc\n", ""])
def test_a_diff_is_one_that_patch_applies(berth, stack, edit: str):
    berth("render", stack, "-o", stack.parent)
    rendered = written(stack.parent)
    (stack.parent / "gitops" / NAME / "base" / "kustomization.yaml").write_text(edit)
    diff = berth("render", stack, "-o", stack.parent, "--diff").stdout
    subprocess.run(["patch", "-p1", "-d", stack.parent], input=diff + "\n", text=True, check=True, capture_output=True)
    assert written(stack.parent) == rendered


def test_a_diff_says_what_becomes_a_program(berth, stack):
    berth("render", stack, "-o", stack.parent)
    (stack.parent / "steps" / NAME / "deploy.sh").chmod(0o644)
    assert "old mode 100644\nnew mode 100755" in berth("render", stack, "-o", stack.parent, "--diff").stdout


def test_links_in_a_circle_are_said(berth, stack):
    (stack.parent / "circle").symlink_to("circle")
    done = berth("render", stack, "-o", stack.parent / "circle")
    assert done.returncode == 2
    assert "circle" in done.stderr


def test_an_edit_is_refused_and_can_be_overwritten(berth, stack):
    berth("render", stack, "-o", stack.parent)
    edited = stack.parent / "gitops" / NAME / "base" / "kustomization.yaml"
    edited.write_text("mine\n")
    refused = berth("render", stack, "-o", stack.parent)
    assert refused.returncode == 5
    assert f"gitops/{NAME}/base/kustomization.yaml: edited since it was rendered" in refused.stderr
    assert edited.read_text() == "mine\n"
    done = berth("render", stack, "-o", stack.parent, "--overwrite", "--format", "json")
    changed = [each["path"] for each in json.loads(done.stdout)["files"] if each["change"] == "overwritten"]
    assert changed == [f"gitops/{NAME}/base/kustomization.yaml"]


CANARY = "canary-key-91c4"


def test_secrets_are_written_only_where_they_are_asked_for(berth, stack):
    keys = {"AWS_ACCESS_KEY_ID": f"{CANARY}-a", "AWS_SECRET_ACCESS_KEY": f'{CANARY}-"b"', "AWS_SESSION_TOKEN": ""}
    plain = berth("render", stack, "-o", stack.parent, **keys)
    assert CANARY not in plain.stdout + plain.stderr + str(written(stack.parent))
    asked = berth("render", stack, "-o", stack.parent, "--with-secrets", **keys)
    assert asked.returncode == 0, asked.stderr
    assert CANARY not in asked.stdout + asked.stderr
    found = {path for path, content in written(stack.parent).items() if CANARY.encode() in content}
    assert found == {f"secrets/{NAME}/minio-connection.yaml"}
    path = stack.parent / found.pop()
    assert path.stat().st_mode & 0o777 == 0o600
    subprocess.run(["git", "init", "-q", stack.parent], check=True)
    subprocess.run(["git", "-C", stack.parent, "add", "-A"], check=True)
    tracked = subprocess.run(["git", "-C", stack.parent, "ls-files"], capture_output=True, text=True, check=True).stdout
    assert "minio-connection" not in tracked
    secrets = list(YAML(typ="safe").load_all(path.read_text()))
    assert {each["metadata"]["namespace"] for each in secrets} == {"private-ai", "minio-storage"}
    assert secrets[0]["stringData"]["AWS_SECRET_ACCESS_KEY"] == f'{CANARY}-"b"'


def test_without_keys_there_are_no_secrets(berth, stack):
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    none |= {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_CONFIG_FILE": "/dev/null"}
    done = berth("render", stack, "-o", stack.parent, "--with-secrets", **none)
    assert done.returncode == 4
    assert "AWS_ACCESS_KEY_ID" in done.stderr
    assert written(stack.parent) == {}


KEYS = {"AWS_ACCESS_KEY_ID": f"{CANARY}-a", "AWS_SECRET_ACCESS_KEY": f"{CANARY}-b", "AWS_SESSION_TOKEN": ""}


@pytest.mark.parametrize("ignore", [None, "", "*.key\n", "*\n!*.yaml\n"])
def test_secrets_do_not_go_into_a_folder_that_git_takes(berth, stack, ignore: str | None):
    """Sealed secrets are often kept in one of that name."""
    folder = stack.parent / "secrets"
    folder.mkdir()
    (folder / "sealed.yaml").write_text("theirs\n")
    if ignore is not None:
        (folder / ".gitignore").write_text(ignore)
    before = written(folder.parent)
    done = berth("render", stack, "-o", stack.parent, "--with-secrets", **KEYS)
    assert done.returncode == 5
    assert str(folder) in done.stderr
    assert {path: content for path, content in written(stack.parent).items() if path.startswith("secrets/")} == before


@pytest.mark.parametrize("ignore", ["*\n", "# nothing for Git\n*\n!.gitignore\n"])
def test_a_folder_that_git_does_not_take_is_used_as_it_is(berth, stack, ignore: str):
    folder = stack.parent / "secrets"
    folder.mkdir()
    (folder / ".gitignore").write_text(ignore)
    (folder / "other").write_text("theirs\n")
    for _ in range(2):
        assert berth("render", stack, "-o", stack.parent, "--with-secrets", **KEYS).returncode == 0
    assert (folder / ".gitignore").read_text() == ignore
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        ".gitignore", "minio-connection.yaml", "other",
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["secrets", f"secrets/{NAME}", f"secrets/{NAME}/minio-connection.yaml"])
def test_secrets_do_not_go_through_a_link(berth, stack, tmp_path, place: str):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = stack.parent / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    done = berth("render", stack, "-o", stack.parent, "--with-secrets", **KEYS)
    assert done.returncode == 2
    assert "a link is where a file of secrets should go" in done.stderr
    assert list(elsewhere.iterdir()) == []


def test_keys_that_end_by_themselves_are_not_written_down(berth, stack):
    passing = {"AWS_ACCESS_KEY_ID": "ASIAPASSING01", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    done = berth("render", stack, "-o", stack.parent, "--with-secrets", **passing)
    assert done.returncode == 4
    assert not (stack.parent / "secrets").exists()


def test_the_script_calls_berth_deploy_on_the_spec(berth, stack):
    berth("render", stack, "-o", stack.parent)
    script = stack.parent / "steps" / NAME / "deploy.sh"
    subprocess.run(["sh", "-n", script], check=True)
    called = stack.parent / "bin" / "berth"
    called.parent.mkdir()
    called.write_text('#!/bin/sh\npwd; printf "%s\\n" "$@"\n')
    called.chmod(0o755)
    done = subprocess.run([script, "--timeout", "1h"], capture_output=True, text=True, check=True,
                          env={"PATH": f"{called.parent}:/usr/bin:/bin"})  # fmt: skip
    assert done.stdout.splitlines() == [
        str(script.parent), "deploy", "../../berth.yaml", "--ship", "--yes", "--timeout", "1h",
    ]  # fmt: skip


def test_every_problem_of_a_spec_is_said_with_its_place(berth, stack):
    stack.write_text(stack.read_text().replace("name: private-ai", "name: x").replace("pool: l4-quad", "pool: l4-quat"))
    done = berth("render", stack, "-o", stack.parent)
    assert done.returncode == 2
    assert "did you mean 'l4-quad'?" in done.stderr
    assert written(stack.parent) == {}


def test_help_says_honestly_what_there_is(berth):
    done = berth("render", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "as a GitOps tree, or print them" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "render" in berth("--help").stdout
