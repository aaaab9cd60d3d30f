"""Closing a wire while other threads are anywhere in a request: nobody waits out a stall."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import pytest

from modelberth.adapters.http_messages import Request
from modelberth.adapters.transport import Cancelled, Wire
from servers import PATIENCE

ROUNDS = 500


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can: between any two steps of one, another may be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never says anything."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener


def _ask(wire: Wire, url: str, ends: list[BaseException]) -> None:
    try:
        wire.patiently(lambda: wire.ask(Request("PUT", url, {}), b"body"), where=url, what="the server")
    except BaseException as error:  # noqa: BLE001 - whatever ended it is what the test looks at
        ends.append(error)


@pytest.mark.usefixtures("restless")
def test_closing_wakes_whoever_waits_for_an_answer(silent: socket.socket) -> None:
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    for number in range(ROUNDS):
        wire, ends = Wire(stall_seconds=3600), []
        thread = Thread(target=_ask, args=(wire, url, ends), daemon=True)
        thread.start()
        with silent.accept()[0]:
            for _ in range(number % 50 * 10):  # the other thread is anywhere between connecting and waiting
                pass
            wire.close()
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert [type(end) for end in ends] == [Cancelled]
