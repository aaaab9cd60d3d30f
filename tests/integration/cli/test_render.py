"""`berth render`: KServe's storage container on standard output, fit for kubectl and for Git."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.integration

IMAGE = "registry.example/modelberth:0.1.0"
WANTED = ("render", "--storage-container", "--image", IMAGE)


def test_yaml_and_json_are_the_same_object(berth):
    as_yaml, as_json = berth(*WANTED), berth(*WANTED, "-o", "json")
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
    done = berth(*WANTED, "--name", "verified-s3", "-o", "json")
    assert json.loads(done.stdout)["metadata"]["name"] == "verified-s3"


def test_every_option_can_be_a_variable(berth):
    done = berth(
        "render",
        BERTH_RENDER_STORAGE_CONTAINER="1",
        BERTH_RENDER_IMAGE=IMAGE,
        BERTH_RENDER_NAME="n",
        BERTH_OUTPUT="json",
    )
    assert json.loads(done.stdout)["metadata"]["name"] == "n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--storage-container"),
        (("--image", IMAGE), "--storage-container"),
        (("--storage-container",), "--image"),
        (("--storage-container", "--image", "registry.example/modelberth"), "not pinned"),
        (("--storage-container", "--image", "modelberth"), "registry/name:tag"),
        ((*WANTED[1:], "--name", "Not A Name"), "name of the storage container"),
        ((*WANTED[1:], "-o", "table"), "'table' is not one of"),
        (("berth.yaml",), "unexpected extra argument"),
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


def test_help_says_honestly_what_there_is(berth):
    done = berth("render", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "so far, KServe's storage container" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "render" in berth("--help").stdout
