"""The delivery of `berth up`: through the embedded store and the image layout, one run after the other."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from modelberth.base.errors import BerthError, DoesNotFit, IntegrityError
from modelberth.flows.local_delivery import Delivery, require_delivery_room, service_source
from modelberth.flows.progress import Note
from modelberth.flows.stage_clock import StageClock
from modelberth.flows.state import State, open_state
from modelberth.spec.reading import read_stack
from modelberth.spec.services import services

pytestmark = pytest.mark.integration


@pytest.fixture
def deliver(tmp_path, stack, settled):
    """Deliver services by variant name; returns what was delivered and the outcome of every stage."""

    def run(*variants, root=None, events=None, **sources):
        spec = stack(*variants, **sources)
        state = open_state(root or tmp_path / "state")
        folder = state.stack("harbor", spec)
        events = [] if events is None else events
        log = folder.root / "runs" / "now"
        log.mkdir(parents=True, exist_ok=True)
        found, outcomes = [], []
        with ExitStack() as held, Delivery(state, folder, log, events.append).open() as delivery:
            for service in services(read_stack(spec.read_bytes(), str(spec))):
                clock = StageClock(service.name, events.append)
                found.append(delivery.deliver(service, service_source(service, spec.parent), clock, held))
                outcomes.append([report.outcome for report in clock.reports])
        return found, outcomes

    return run


def test_both_ways_and_the_second_time_nothing_moves(deliver, weights, hashes, tmp_path):
    found, outcomes = deliver("bf16", "int4")
    assert outcomes == [
        ["4.65 MB", "8 files, 4.65 MB, every byte checked"],
        [outcomes[1][0], "6 files, 2.03 MB, every byte checked"],
    ]
    assert [hashes(item.folder) for item in found] == [hashes(weights("bf16")), hashes(weights("w4a16"))]
    again, outcomes = deliver("bf16", "int4")
    assert outcomes == [["unchanged", "unchanged"]] * 2
    assert [item.folder for item in again] == [item.folder for item in found]
    assert [item.digest for item in again] == [item.digest for item in found]


@pytest.mark.parametrize("variant", ["bf16", "int4"])
def test_a_damaged_serving_folder_is_made_anew(deliver, flip, hashes, weights, variant):
    (found,), _ = deliver(variant)
    flip(found.folder / "tokenizer.json", 5)
    (again,), outcomes = deliver(variant)
    assert outcomes[0][0] == "unchanged"
    assert "every byte checked" in outcomes[0][1]
    assert again.folder == found.folder
    assert hashes(again.folder) == hashes(weights({"bf16": "bf16", "int4": "w4a16"}[variant]))


@pytest.mark.parametrize("variant", ["bf16", "int4"])
def test_a_changed_model_is_served_from_another_folder(deliver, model, hashes, variant):
    folder = model({"bf16": "bf16", "int4": "w4a16"}[variant])
    (found,), _ = deliver(variant, **{variant: folder})
    (folder / "generation_config.json").write_text("{}")
    (again,), outcomes = deliver(variant, **{variant: folder})
    assert "unchanged" not in outcomes[0]
    assert again.folder != found.folder
    assert hashes(again.folder) == hashes(folder)
    assert not found.folder.exists()  # nobody serves from it


def test_wrong_bytes_in_the_store_never_get_the_final_name(deliver, flip, weights, hashes):
    (found,), _ = deliver("bf16")
    stored = found.folder.parents[2] / "s3" / "models" / "harbor" / "bf16" / "tokenizer.json"
    flip(stored, 100)
    flip(found.folder / "config.json", 100)
    with pytest.raises(IntegrityError) as caught:
        deliver("bf16")
    assert "tokenizer.json bytes 0 to" in caught.value.where
    assert caught.value.next_step.startswith("run the same command again")
    assert not found.folder.exists()
    (again,), outcomes = deliver("bf16")
    assert "unchanged" not in outcomes[0]
    assert hashes(again.folder) == hashes(weights("bf16"))


def test_wrong_bytes_in_the_image_are_built_anew_the_next_time(deliver, flip, weights, hashes):
    (found,), _ = deliver("int4")
    blobs = found.folder.parents[2] / "oci" / "blobs" / "sha256"
    flip(max(blobs.iterdir(), key=lambda blob: blob.stat().st_size), 5000)
    flip(found.folder / "config.json", 100)
    with pytest.raises(IntegrityError) as caught:
        deliver("int4")
    assert caught.value.next_step.startswith("run the same command again")
    assert not found.folder.exists()
    (again,), outcomes = deliver("int4")
    assert "unchanged" not in outcomes[0]
    assert hashes(again.folder) == hashes(weights("w4a16"))


@pytest.mark.parametrize(("size", "variant"), [("3m", "bf16"), ("7m", "bf16"), ("1m", "int4"), ("3m", "int4")])
def test_a_full_disk(deliver, small_disk, size, variant):
    """Too small for the store's copy, or for the serving folder's."""
    disk = small_disk(size)
    with pytest.raises(DoesNotFit) as caught:
        deliver(variant, root=disk)
    assert caught.value.exit_code == 8
    assert not list(disk.rglob("*.part"))


def test_what_does_not_fit_is_told_before_anything_moves(small_disk, stack):
    disk, spec = small_disk("24m"), stack("bf16", "int4")
    found = [(item, service_source(item, spec.parent)) for item in services(read_stack(spec.read_bytes(), str(spec)))]
    require_delivery_room(State(disk).stack("harbor", spec), found[1:])
    with pytest.raises(DoesNotFit) as caught:
        require_delivery_room(State(disk).stack("harbor", spec), found)
    assert "needed" in caught.value.why
    assert list(disk.iterdir()) == []


RUN = """
import pathlib, sys
from contextlib import ExitStack
from modelberth.flows.local_delivery import Delivery, service_source
from modelberth.flows.progress import Note, StageEnded
from modelberth.flows.stage_clock import StageClock
from modelberth.flows.state import open_state
from modelberth.spec.reading import read_stack
from modelberth.spec.services import services
spec, root, pause = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3] == "pause"
state = open_state(root)
folder = state.stack("harbor", spec)
def listen(event):
    if isinstance(event, Note):
        print("note", event.text, flush=True)
    elif isinstance(event, StageEnded):
        print(event.stage, event.detail, flush=True)
(service,) = services(read_stack(spec.read_bytes(), str(spec)))
with ExitStack() as held, Delivery(state, folder, folder.root, listen).open() as delivery:
    if pause:
        print("holding", flush=True)
        sys.stdin.readline()
    delivery.deliver(service, service_source(service, spec.parent), StageClock("x", listen), held)
print("done", flush=True)
"""


@pytest.mark.parametrize("variant", ["bf16", "int4"])
def test_two_processes_deliver_one_after_the_other(script, stack, tmp_path, variant):
    spec = stack(variant)
    first = script(RUN, spec, tmp_path / "state", "pause")
    first.lines.wait_for("holding")
    second = script(RUN, spec, tmp_path / "state", "at once")
    assert second.lines.next() == "note another run of this stack is delivering; waiting for it"
    first.process.stdin.write("\n")
    first.process.stdin.flush()
    said = first.lines.rest().splitlines()
    assert said[-1] == "done"
    assert "every byte checked" in said[-2]
    assert second.lines.rest().splitlines()[1:] == ["ship unchanged", "fetch unchanged", "done"]


GATED = """\
import threading
GATE = threading.Lock()
def listen(event):
    with GATE:  # several threads tell of what they have moved
        print('event', flush=True); sys.stdin.readline()"""


@pytest.mark.parametrize("variant", ["bf16", "int4"])
def test_the_next_one_completes_what_a_killed_one_began(script, stack, tmp_path, deliver, hashes, weights, variant):
    spec = stack(variant)
    code = RUN.replace("def listen(event):", GATED)
    for steps in range(1, 6):
        run = script(code, spec, tmp_path / "state", "at once")
        for _ in range(steps):
            assert run.lines.next() == "event"
            run.process.stdin.write("\n")
            run.process.stdin.flush()
        run.kill()
    (found,), _ = deliver(variant)
    assert hashes(found.folder) == hashes(weights({"bf16": "bf16", "int4": "w4a16"}[variant]))


def test_a_run_that_waits_is_told_why(deliver, stack, tmp_path):
    events = []
    deliver("int4", events=events)
    assert not [event for event in events if isinstance(event, Note)]


@pytest.mark.parametrize("source", ["s3://models/x/", "hf://acme/x", None])
def test_a_source_that_is_no_folder(stack, source):
    spec = stack("int4")
    text = spec.read_text()
    start = text.index("source:")
    end = text.index(", weights")
    spec.write_text(text[:start] + (f"source: '{source}'" if source else "maxModelLen: 512") + text[end:])
    if source is None:
        spec.write_text(spec.read_text().replace(", maxModelLen: 1024", ""))
    (service,) = services(read_stack(spec.read_bytes(), str(spec)))
    with pytest.raises(BerthError) as caught:
        service_source(service, spec.parent)
    assert caught.value.exit_code == 2
