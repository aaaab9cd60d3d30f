"""What the tests of delivery share: a model of a few parts, real stores, proxies with faults, `berth` at a bucket."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docks import SIZES, Dock, Store, write_model
from fault_proxy import FaultProxy
from servers import Moto, ProgramMissing, start_moto


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' model, 15 MB; nobody changes it."""
    return write_model(tmp_path_factory.mktemp("source") / "harbor", *SIZES)


@pytest.fixture
def own_source(tmp_path: Path, source: Path) -> Path:
    """A copy of the tests' model that a test may change."""
    folder = tmp_path / "own-source"
    shutil.copytree(source, folder)
    return folder


@pytest.fixture(scope="session")
def _moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    try:
        server = start_moto(tmp_path_factory.mktemp("moto"))
    except ProgramMissing as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def moto(_moto_server: Moto) -> Store:
    """moto's server: 206, conditional writes, parts and uploads that can be listed; it takes any keys."""
    return Store(_moto_server.url)


@pytest.fixture
def rclone(s3) -> Store:
    """rclone's server, shared by the tests of a module: plain files on disk, and it checks keys."""
    return Store(s3.server.endpoint, s3.server.keys.access_key, s3.server.keys.secret_key, s3.data)


@pytest.fixture
def front() -> Iterator[Callable[[str], FaultProxy]]:
    """Put a proxy with faults in front of a server; it is closed after the test."""
    opened: list[FaultProxy] = []

    def open_front(url: str) -> FaultProxy:
        opened.append(FaultProxy(url))
        return opened[-1]

    yield open_front
    for proxy in opened:
        proxy.close()


@pytest.fixture
def dock(berth, front, tmp_path: Path) -> Callable[..., Dock]:
    """`berth` at a new bucket of a store, or at one that is there, each behind a proxy of its own."""
    count = 0

    def make(store: Store, bucket: str = "", proxy: FaultProxy | None = None, name: str = "") -> Dock:
        nonlocal count
        count += 1
        state = tmp_path / "states" / (name or str(count))
        return Dock(berth, store, proxy or front(store.url), bucket or store.new_bucket(), state)

    return make
