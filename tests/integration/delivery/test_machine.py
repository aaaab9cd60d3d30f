"""Ships, fetches and accidents in any order: where the mark is and a fetch succeeds, every byte is the source's."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from docks import MARK, OWN, PART, Store, settle, write_model
from modelberth.adapters.folder import read_manifest
from modelberth.adapters.s3_server import S3Server
from modelberth.base.errors import Conflict, IntegrityError
from modelberth.flows import delivery, upkeep
from modelberth.flows.delivery import DeliveryRequest
from modelberth.flows.places import PlaceOptions
from modelberth.flows.progress import BytesMoved, silent

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Stopped(BaseException):
    """What ends a run in the middle."""


class StopAt:
    """A listener that ends the run at one of the times that bytes of a stage have moved."""

    def __init__(self, stage: str, number: int) -> None:
        self._stage, self._left = stage, number

    def __call__(self, event: object) -> None:
        if isinstance(event, BytesMoved) and event.stage == self._stage:
            self._left -= 1
            if self._left < 0:
                raise Stopped


def hashes_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and OWN[:-1] not in path.parts
    }


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> tuple[Path, ...]:
    """Three models: the second differs from the first in some bytes, the third in its files."""
    root = tmp_path_factory.mktemp("variants")
    first = write_model(root / "first", PART + 9_000, 20_000)
    second = root / "second"
    shutil.copytree(first, second)
    with (second / "model-00001-of-00002.safetensors").open("r+b") as file:
        file.seek(PART + 1000)
        file.write(b"other bytes, same size")
    (second / "added.json").write_text("{}")
    settle(second)
    return first, second, write_model(root / "third", 30_000)


class Deliveries(RuleBasedStateMachine):
    """One prefix of one server, one folder that is fetched into, and what is known of both."""

    server: S3Server
    data: Path
    sources: tuple[Path, ...]

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="machine-")))
        self.store = Store(self.server.endpoint, self.server.keys.access_key, self.server.keys.secret_key, self.data)
        self.environment = self._stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in self.store.environment().items():
            self.environment.setenv(name, value)
        self.bucket = self.store.new_bucket()
        self.client = self._stack.enter_context(closing(self.store.client()))
        self.address, self.folder = f"s3://{self.bucket}/m/", self.root / "folder"
        self.shipped: Path | None = None
        """What the prefix holds if its mark is there."""
        self.hurt = False
        """Whether an object was changed or removed behind our back."""

    @initialize()
    def begin(self) -> None:
        """Something is there from the beginning."""
        self.ship(self.sources[0])

    # --- what we do --------------------------------------------------------------------------------------

    def request(self, source: str, destination: str) -> DeliveryRequest:
        return DeliveryRequest(
            source, destination, state=self.root / "state", places=PlaceOptions(part_bytes=PART, stall_seconds=20)
        )

    def ship(self, source: Path, listener=silent) -> None:
        delivery.ship(self.request(str(source), self.address), listener)
        self.shipped = source

    def is_wrong(self) -> bool:
        """Whether a check finds wrong, missing or additional bytes."""
        try:
            return bool(upkeep.check(self.request("", self.address), silent).wrong)
        except IntegrityError:
            return True

    def has_mark(self) -> bool:
        return "m/" + MARK in self.store.keys(self.bucket)

    @rule(number=st.integers(0, 2))
    def ship_all(self, number: int) -> None:
        """A ship that is not disturbed makes the prefix complete; what was hurt before is sent again if it shows."""
        try:
            self.ship(self.sources[number])
        except Conflict:
            raise AssertionError("nobody else ships here, and every object is one of ours") from None
        assert self.has_mark()

    @rule(number=st.integers(0, 2), at=st.integers(0, 3))
    def ship_some(self, number: int, at: int) -> None:
        """A ship that ends in the middle leaves no mark, or that of a whole delivery."""
        before = self.shipped
        try:
            self.ship(self.sources[number], StopAt("ship", at))
        except Stopped:
            self.shipped = before if self.has_mark() else None

    @rule()
    def fetch_all(self) -> None:
        """A fetch succeeds only with all bytes of what was shipped."""
        try:
            report = delivery.fetch(self.request(self.address, str(self.folder)), silent)
        except IntegrityError:
            assert self.hurt or self.shipped is None
            return
        assert self.shipped is not None
        assert hashes_of(self.folder) == hashes_of(self.shipped)
        assert {entry.path: entry.sha256 for entry in report.manifest.files} == hashes_of(self.shipped)

    @rule(at=st.integers(0, 3))
    def fetch_some(self, at: int) -> None:
        """A fetch that ends in the middle leaves no mark in the folder, but where nothing was to be done."""
        before = self.marked()
        try:
            report = delivery.fetch(self.request(self.address, str(self.folder)), StopAt("fetch", at))
        except Stopped:
            assert self.marked() in (None, before)
        except IntegrityError:
            assert self.hurt or self.shipped is None
        else:
            assert self.shipped is not None
            assert {entry.path: entry.sha256 for entry in report.manifest.files} == hashes_of(self.shipped)

    def marked(self) -> dict[str, str] | None:
        """The hashes that the folder's manifest declares; None without one."""
        manifest = read_manifest(self.folder)
        return {entry.path: entry.sha256 for entry in manifest.files} if manifest else None

    @invariant()
    def a_mark_in_the_folder_means_that_every_byte_is_right(self) -> None:
        if self.marked() is not None:
            assert hashes_of(self.folder) == self.marked()

    # --- what happens to us --------------------------------------------------------------------------------

    def objects(self) -> list[str]:
        return [key for key in self.store.keys(self.bucket) if not key.startswith("m/" + OWN)]

    @precondition(lambda self: self.shipped is not None and not self.hurt)
    @rule(data=st.data())
    def turn_a_byte_over(self, data: st.DataObject) -> None:
        """At rest: neither its size nor its name shows it, but a check does."""
        key = data.draw(st.sampled_from(sorted(self.objects())))
        content = bytearray(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 0xFF
        self.client.put_object(Bucket=self.bucket, Key=key, Body=bytes(content))
        self.hurt = True
        assert self.is_wrong()

    @precondition(lambda self: self.shipped is not None and not self.hurt)
    @rule(data=st.data())
    def remove_an_object(self, data: st.DataObject) -> None:
        """A fetch and a check see it, and the next ship of the same model brings it back."""
        source, key = self.shipped, data.draw(st.sampled_from(sorted(self.objects())))
        self.client.delete_object(Bucket=self.bucket, Key=key)
        self.hurt = True
        assert self.is_wrong()
        self.fetch_all()
        self.ship(source)
        self.hurt = False
        assert not self.is_wrong()

    @precondition(lambda self: self.hurt)
    @rule()
    def mend(self) -> None:
        """Whoever is told of wrong bytes removes what is there and ships again."""
        for key in self.store.keys(self.bucket):
            self.client.delete_object(Bucket=self.bucket, Key=key)
        self.hurt = False
        self.ship(self.sources[0])

    @precondition(lambda self: not self.hurt)
    @invariant()
    def a_mark_means_that_every_byte_is_right(self) -> None:
        if self.shipped is not None:
            assert self.store.objects(self.bucket) == hashes_of(self.shipped)
        else:
            assert not self.has_mark()

    def teardown(self) -> None:
        self.store.empty(self.bucket)
        self._stack.close()


def test_in_any_order_a_mark_means_that_every_byte_is_right(s3, variants):
    class Machine(Deliveries):
        server, data, sources = s3.server, s3.data, variants

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15, stateful_step_count=12, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
