"""What a diagnosis gets out of a must-gather: the objects and logs of the namespaces that serve models, and no more."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from modelberth.base.errors import UsageError
from modelberth.base.yamlio import write_documents
from modelberth.flows.must_gather import Gathered, LogPlace, log_place, read_must_gather

SERVICE = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
           "metadata": {"name": "mistral", "namespace": "private-ai", "managedFields": [{"manager": "x"}]}}  # fmt: skip
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mistral-0", "namespace": "private-ai"}}
OTHER_POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "etcd-0", "namespace": "openshift-etcd"}}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "private-ai"}}


def listed(kind: str, *items: dict[str, Any]) -> dict[str, Any]:
    bare = [{key: value for key, value in each.items() if key not in {"apiVersion", "kind"}} for each in items]
    return {"apiVersion": "v1", "kind": f"{kind}List", "items": bare}


def gather(root: Path) -> Path:
    """As `oc adm must-gather` lays it out."""
    base = root / "quay-io-must-gather-sha256-0123"
    files: dict[str, dict[str, Any] | str] = {
        "namespaces/private-ai/serving.kserve.io/inferenceservices/mistral.yaml": SERVICE,
        "namespaces/private-ai/core/pods.yaml": listed("Pod", POD),
        "namespaces/private-ai/pods/mistral-0/mistral-0.yaml": POD,
        "namespaces/private-ai/core/secrets.yaml": listed("Secret", SECRET),
        "namespaces/private-ai/pods/mistral-0/kserve-container/kserve-container/logs/current.log": "now\n",
        "namespaces/private-ai/pods/mistral-0/kserve-container/kserve-container/logs/previous.log": "before\n",
        "namespaces/openshift-etcd/core/pods.yaml": listed("Pod", OTHER_POD),
        "namespaces/openshift-etcd/pods/etcd-0/etcd/etcd/logs/current.log": "etcd\n",
        "cluster-scoped-resources/core/nodes/worker-1.yaml": NODE,
        "cluster-scoped-resources/config.openshift.io/infrastructures.yaml": listed("Infrastructure"),
    }
    for name, content in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else write_documents([content]))
    (base / "version").write_text("openshift/must-gather\n4.20\n")
    return root


def read(path: Path, namespace: str | None = None) -> tuple[Gathered, dict[str, bytes]]:
    gathered = read_must_gather(path, namespace)
    return gathered, {each.name: b"".join(each.blocks) for each in gathered.logs(gathered.places)}


def names(gathered: Gathered) -> list[tuple[str, str]]:
    return sorted((each["kind"], each["metadata"]["name"]) for each in gathered.objects)


def test_objects_and_logs_of_the_namespaces_that_serve(tmp_path: Path) -> None:
    gathered, logs = read(gather(tmp_path))
    assert names(gathered) == [("InferenceService", "mistral"), ("Node", "worker-1"), ("Pod", "mistral-0")]
    assert logs == {"mistral-0/kserve-container": b"now\n", "mistral-0/kserve-container (previous)": b"before\n"}
    assert gathered.namespaces == ("private-ai",)
    assert "managedFields" not in json.dumps(gathered.objects)
    assert gathered.notes == []


def test_an_archive_says_the_same(tmp_path: Path) -> None:
    folder = gather(tmp_path / "folder")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(folder, "must-gather")
    from_archive, logs = read(tmp_path / "all.tar.gz")
    assert (names(from_archive), logs) == (names(read(folder)[0]), read(folder)[1])


def test_another_namespace_on_request(tmp_path: Path) -> None:
    gathered, logs = read(gather(tmp_path), "openshift-etcd")
    assert names(gathered) == [("Node", "worker-1"), ("Pod", "etcd-0")]
    assert list(logs) == ["etcd-0/etcd"]


def test_an_unknown_namespace_is_named_with_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no namespace privat-ai") as caught:
        read(gather(tmp_path), "privat-ai")
    assert caught.value.why == "did you mean 'private-ai'?"


def test_a_file_that_cannot_be_read_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = gather(tmp_path)
    broken = next(folder.rglob("inferenceservices/mistral.yaml")).with_name("broken.yaml")
    broken.write_text("a: [1\n\x00")
    gathered, _ = read(folder)
    assert ("InferenceService", "mistral") in names(gathered)
    assert [note for note in gathered.notes if "broken.yaml is left out" in note]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: (path / "notes").mkdir(parents=True)])
def test_what_is_no_gathering(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "folder")
    with pytest.raises(UsageError, match="no namespace is in it"):
        read(tmp_path / "folder")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("namespaces/ns/pods/p/c/c/logs/current.log", ("ns", "p", "c", False)),
        ("x/y/namespaces/ns/pods/p/c/c/logs/previous.insecure.log", ("ns", "p", "c", True)),
        ("namespaces/ns/pods/p/c/c/logs/rotated/0.log", None),
        ("namespaces/ns/core/pods.yaml", None),
    ],
)  # fmt: skip
def test_whose_log_a_file_is(path: str, expected: tuple[str, str, str, bool] | None) -> None:
    assert log_place(path) == (LogPlace(*expected, path) if expected else None)
