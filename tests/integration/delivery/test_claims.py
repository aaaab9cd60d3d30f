"""One ship at a time to a prefix: who wins, what the loser leaves, and how long a dead one stands in the way."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from contextlib import closing

import pytest

from docks import MARK, OWN, KillSending, Victim
from fault_proxy import Callback, Fault, Request, StallSent

pytestmark = pytest.mark.integration
CLAIM = r"/\.modelberth/claim-"


@pytest.fixture
def pair(dock, rclone):
    """`berth` twice at one bucket, each with a state folder and a proxy of its own, as on two machines."""
    first = dock(rclone)
    return first, dock(rclone, first.bucket)


def changes(requests: list[Request]) -> list[str]:
    """What was written or removed: method and path, numbers of parts and claims left out."""
    return [
        f"{each.method} {each.path.partition('?')[0].partition('/m/')[2]}"
        for each in requests
        if each.method not in {"GET", "HEAD"}
    ]


def claims(dock) -> list[str]:
    """Claims that lie in the prefix."""
    return [key for key in dock.store.keys(dock.bucket) if key.startswith(f"m/{OWN}claim-")]


def put_claim(dock, *, state: str, seconds_ago: float, name: str = "", content: bytes | None = None) -> str:
    """A claim as a process of another machine has written it; before the server has looked into the folder."""
    boot = str(uuid.uuid4())
    said = {"state": state, "host": "elsewhere", "pid": 4711, "start": "1", "boot": boot, "space": "pid:[1]"}
    path = dock.store.folder / dock.bucket / "m" / OWN / f"claim-{name or uuid.uuid4().hex}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(said).encode() if content is None else content)
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return f"m/{OWN}{path.name}"


def remove(dock, *keys: str) -> None:
    """Remove objects, past the proxy."""
    with closing(dock.store.client()) as client:
        for key in keys:
            client.delete_object(Bucket=dock.bucket, Key=key)


def test_of_two_that_want_at_the_same_moment_exactly_one_ships(pair, source, hashes):
    met = threading.Barrier(2)
    for each in pair:
        each.proxy.add(Fault(Callback(lambda _request: met.wait(50)), method="PUT", path=CLAIM, times=1))
    started = [each.start("ship", source, each.address) for each in pair]
    ends = [each.end(one) for each, one in zip(pair, started, strict=True)]
    assert sorted(end.code for end in ends) == [0, 5]
    (loser,) = (number for number, end in enumerate(ends) if end.code == 5)
    assert "another ship to this destination is under way" in ends[loser].talk
    wrote = changes(pair[loser].requests)
    assert [line.partition("claim-")[0] for line in wrote] == [f"PUT {OWN}", f"DELETE {OWN}"]
    assert claims(pair[0]) == []
    assert pair[0].objects() == hashes(source)


def test_who_comes_while_another_ships_writes_nothing_and_disturbs_nothing(pair, source, hashes):
    first, second = pair
    first.proxy.add(Fault(StallSent(1000), method="PUT", path="partNumber", times=1))
    under_way = first.start("ship", source, first.address)
    first.proxy.wait_stalled()
    late = second.ship(source)
    first.proxy.release()
    assert first.end(under_way).code == 0
    assert late.code == 5
    assert "by process" in late.talk
    assert [line.partition("claim-")[0] for line in changes(second.requests)] == [f"PUT {OWN}", f"DELETE {OWN}"]
    assert (claims(first), first.objects()) == ([], hashes(source))


def test_who_comes_on_the_same_machine_with_the_same_state_writes_nothing_at_all(pair, source, hashes):
    first = pair[0]
    first.proxy.add(Fault(StallSent(1000), method="PUT", path="partNumber", times=1))
    under_way = first.start("ship", source, first.address, "--connections", 1)
    first.proxy.wait_stalled()
    before = changes(first.requests)
    assert first.ship(source).code == 5
    assert changes(first.requests) == before
    first.proxy.release()
    assert first.end(under_way).code == 0
    assert first.objects() == hashes(source)


def test_ships_to_neighbouring_prefixes_do_not_meet(pair, source):
    first, second = pair
    first.proxy.add(Fault(StallSent(1000), method="PUT", path="partNumber", times=1))
    under_way = first.start("ship", source, first.address)
    first.proxy.wait_stalled()
    for beside in ("m2", "m-fp8", "mm/m"):
        assert second.run("ship", source, f"s3://{second.bucket}/{beside}/").code == 0
    first.proxy.release()
    assert first.end(under_way).code == 0


def killed_midway(dock, source) -> None:
    victim = Victim()
    dock.proxy.add(Fault(KillSending(victim, 1000), method="PUT", path="partNumber", times=1))
    assert dock.end(victim.is_(dock.start("ship", source, dock.address))).code == -9
    assert len(claims(dock)) == 1


def test_the_claim_of_a_killed_ship_of_this_machine_is_forgotten_at_once(pair, source, hashes):
    killed_midway(pair[0], source)
    assert pair[1].ship(source).code == 0
    assert (claims(pair[0]), pair[0].objects()) == ([], hashes(source))


def test_the_claim_of_a_killed_ship_does_not_hinder_readers(pair, source, hashes, tmp_path):
    assert pair[0].ship(source).code == 0
    put_claim(pair[0], state="holding", seconds_ago=1)
    assert pair[1].fetch(tmp_path / "back").code == 0
    assert hashes(tmp_path / "back") == hashes(source)
    assert pair[1].run("ship", "--check", pair[1].address).code == 0


def test_a_claim_of_another_machine_stands_until_it_is_a_minute_old_by_the_clock_of_the_store(pair, dock, source):
    young, old = pair[0], dock(pair[0].store)
    there = put_claim(young, state="holding", seconds_ago=50)
    refused = young.ship(source)
    assert refused.code == 5
    assert "process 4711 on elsewhere" in refused.talk
    assert claims(young) == [there]
    put_claim(old, state="holding", seconds_ago=62)
    assert old.ship(source).code == 0
    assert claims(old) == []


@pytest.mark.parametrize(("name", "code"), [("0" * 32, 5), ("f" * 32, 5)])
def test_who_only_wants_and_never_goes_on_is_not_run_over(pair, source, name, code):
    """A smaller name wins; a larger one has seen us and withdraws, unless it is as slow as here."""
    put_claim(pair[0], state="wanting", seconds_ago=0, name=name)
    assert pair[0].ship(source).code == code
    assert [line.partition("claim-")[0] for line in changes(pair[0].requests)] == [f"PUT {OWN}", f"DELETE {OWN}"]


def test_a_larger_name_that_withdraws_lets_us_go_on(pair, source, hashes):
    here, key = pair[0], put_claim(pair[0], state="wanting", seconds_ago=0, name="f" * 32)
    withdraw = Callback(lambda _request: remove(here, key))
    here.proxy.add(Fault(withdraw, method="GET", path="/claim-f", after=1, times=1))
    assert here.ship(source).code == 0
    assert here.objects() == hashes(source)


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b'"holding"', b"\xff\xfe", b'{"pid": true, "state": 5}'])
def test_a_claim_of_nonsense_stands_as_long_as_any(pair, dock, source, content):
    young, old = pair[0], dock(pair[0].store)
    put_claim(young, state="", seconds_ago=0, name="0" * 32, content=content)
    assert young.ship(source).code == 5
    put_claim(old, state="", seconds_ago=62, name="0" * 32, content=content)
    assert old.ship(source).code == 0


def test_a_ship_whose_claim_was_taken_away_writes_no_mark(pair, source):
    """Another machine took it for dead: it had not renewed its claim for a minute."""
    here = pair[0]
    here.proxy.add(
        Fault(Callback(lambda _request: remove(here, *claims(here))), method="PUT", path="partNumber=3", times=1)
    )
    ended = here.ship(source)
    assert ended.code == 5
    assert "another ship took over" in ended.talk
    assert not here.has_mark()


def test_garbage_is_not_collected_while_a_ship_is_under_way(pair, source, hashes):
    first, second = pair
    first.proxy.add(Fault(StallSent(1000), method="PUT", path="partNumber", times=1))
    under_way = first.start("ship", source, first.address)
    first.proxy.wait_stalled()
    assert second.run("ship", "--gc", second.address).code == 5
    first.proxy.release()
    assert first.end(under_way).code == 0
    assert first.objects() == hashes(source)
    assert first.has_mark()


def test_a_ship_that_fails_leaves_no_claim(pair, source, own_source, flip):
    here = pair[0]
    shard = own_source / "model-00002-of-00003.safetensors"
    here.proxy.add(Fault(Callback(lambda _request: flip(shard, 6_000_000)), method="PUT", path="partNumber=1", times=1))
    ended = here.ship(own_source, "--connections", 1)
    assert ended.code == 7
    assert "a file changed while it was shipped" in ended.talk
    assert (claims(here), here.has_mark(), MARK in here.objects()) == ([], False, False)
