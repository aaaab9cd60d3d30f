"""What the tests of the registry's adapter share: repositories that nobody else uses, and no logins from around us."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelberth.adapters.registry import Registry, RegistryOptions
from modelberth.spec.addresses import OciAddress


@pytest.fixture
def no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without logins; returns it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def repository(no_logins: Path) -> Iterator[Callable[..., Registry]]:
    """Open a repository at a host or URL, a new one unless named; closed after the test."""
    opened: list[Registry] = []

    def open_one(at: str, name: str = "", **options: object) -> Registry:
        host = at.partition("://")[2] or at
        name = name or f"tests/r{uuid.uuid4().hex[:12]}"
        opened.append(Registry(OciAddress(host, name, "latest", ""), RegistryOptions(**options)))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()
