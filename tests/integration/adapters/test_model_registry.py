"""The model registry's interface: names are data, what is missing is told from what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model_registry_server import ModelRegistryServer
from modelberth.adapters.model_registry import ModelRegistry, service_url
from modelberth.base.errors import Conflict, IntegrityError, UsageError

pytestmark = pytest.mark.integration
NAMES = ["a&parentResourceId=9", "100% #1?", "a+b c", "é/ü\\", "{{ .Name }}", "../registered_models", "NO", "1e3"]


@pytest.fixture
def server() -> Iterator[ModelRegistryServer]:
    running = ModelRegistryServer()
    yield running
    running.close()


@pytest.fixture
def registry(server: ModelRegistryServer) -> Iterator[ModelRegistry]:
    client = ModelRegistry(server.url)
    yield client
    client.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_characters_is_found_as_it_was_made(registry, server, name):
    model = registry.create("registered_models", {"name": name})
    version = registry.create("model_versions", {"name": name, "registeredModelId": model["id"]})
    assert registry.find("registered_model", name) == model
    assert registry.find("model_version", name, model["id"]) == version
    assert registry.find("model_version", name[:-1], model["id"]) is None
    assert list(server.named("registered_models")) == [name]


def test_a_name_is_unique_below_its_parent_only(registry):
    first, second = (registry.create("registered_models", {"name": name}) for name in ("a", "b"))
    for parent in (first, second):
        registry.create("model_versions", {"name": "v", "registeredModelId": parent["id"]})
    with pytest.raises(Conflict):
        registry.create("model_versions", {"name": "v", "registeredModelId": second["id"]})


def test_a_change_leaves_what_it_does_not_name_and_no_name_is_changed(registry):
    model = registry.create("registered_models", {"name": "a", "description": "d", "state": "ARCHIVED"})
    assert registry.change(f"registered_models/{model['id']}", {"state": "LIVE"})["description"] == "d"
    with pytest.raises(IntegrityError):
        registry.change(f"registered_models/{model['id']}", {"name": "b"})
    with pytest.raises(Conflict):
        registry.change("registered_models/77", {"state": "LIVE"})


def test_only_model_artifacts_of_the_version_are_listed(registry, server):
    model = registry.create("registered_models", {"name": "a"})
    versions = [registry.create("model_versions", {"name": name, "registeredModelId": model["id"]}) for name in "vw"]
    made = [
        registry.create(f"model_versions/{each['id']}/artifacts", {"artifactType": "model-artifact"})
        for each in versions
    ]
    server.store.create("model_artifacts", {"name": "readme", "artifactType": "doc-artifact"}, versions[0]["id"])
    assert registry.artifacts(versions[0]["id"]) == made[:1]
    assert registry.artifacts("77") == []


@pytest.mark.parametrize(
    "text", ["https://r.example", "https://r.example/", "https://r.example/api/model_registry/v1alpha3",
             "https://r.example/api/model_registry/v1/"],
)  # fmt: skip
def test_a_service_is_named_with_or_without_the_path_of_the_interface(text):
    assert service_url(text) == "https://r.example"


def test_a_service_below_a_path_keeps_it():
    assert service_url("https://gateway.example/registries/a/") == "https://gateway.example/registries/a"


@pytest.mark.parametrize(
    "text", ["", "r.example:8080", "https://u:hidden@r.example", "https://r.example:0x", "http://["]
)
def test_what_is_no_url_is_refused_without_being_repeated(text):
    with pytest.raises(UsageError) as refused:
        service_url(text)
    assert "hidden" not in " ".join(map(str, vars(refused.value).values()))
