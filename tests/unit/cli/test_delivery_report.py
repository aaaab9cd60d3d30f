"""What ship, fetch, check and the clean-up say at their end, in every form; and how far a transfer is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from ruamel.yaml import YAML

from modelberth.base.clock import Stopwatch
from modelberth.cli.delivery_report import show_check, show_delivery, show_remains
from modelberth.cli.display import LineDisplay
from modelberth.delivery.manifest import FileEntry, FileManifest
from modelberth.flows.deliveries import WrongBytes
from modelberth.flows.delivery import DeliveryReport
from modelberth.flows.progress import BytesMoved, Note, StageBegun, StageEnded
from modelberth.flows.upkeep import CheckReport, Remains

SHA = "0123456789abcdef" * 4
MANIFEST = FileManifest(
    (
        FileEntry("config.json", 1305, SHA, ("0" * 16,)),
        FileEntry("model.safetensors", 47_000_000_000, SHA[::-1], ("1" * 16,) * 701),
    )
)
DIGEST = "sha256:" + "f" * 64


def delivered(*, changed: bool = True, seconds: float = 100.0) -> DeliveryReport:
    moved = MANIFEST.size if changed else 0
    return DeliveryReport("./weights", "s3://models/m/", DIGEST, MANIFEST, changed, moved, seconds)


def checked(*wrong: WrongBytes) -> CheckReport:
    return CheckReport("s3://models/m/", DIGEST, 2, MANIFEST.size, wrong, 12.3456)


WRONG = WrongBytes("model.safetensors", 67_108_864, 134_217_727, "CRC-64/NVME 1, declared 2")
REMAINS = (
    Remains("multipart upload", "m/model.safetensors", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
    Remains("blob", "0123", None),
)


def load(text: str, form: str):
    return json.loads(text) if form == "json" else YAML(typ="safe").load(text)


# --- ship and fetch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("verb", ["ship", "fetch"])
def test_a_delivery_as_a_document(capsys, verb: str, form: str):
    show_delivery(verb, delivered(), form)
    assert load(capsys.readouterr().out, form) == {
        "schemaVersion": f"modelberth.dev/{verb}/v1",
        "source": "./weights",
        "destination": "s3://models/m/",
        "digest": DIGEST,
        "manifest": f"sha256:{MANIFEST.digest}",
        "changed": True,
        "bytes": 47_000_001_305,
        "bytesMoved": 47_000_001_305,
        "seconds": 100.0,
        "files": [
            {"path": "config.json", "bytes": 1305, "sha256": SHA},
            {"path": "model.safetensors", "bytes": 47_000_000_000, "sha256": SHA[::-1]},
        ],
    }


def test_a_delivery_for_people(capsys):
    show_delivery("ship", delivered(), "table")
    assert capsys.readouterr().out.splitlines() == [
        "./weights -> s3://models/m/",
        "  2 files, 47.00 GB: 47.00 GB moved, 470.00 MB/s, 100 s",
        f"  {DIGEST}",
    ]


def test_a_delivery_that_was_there_already(capsys):
    show_delivery("ship", delivered(changed=False, seconds=0.0), "table")
    assert "  2 files, 47.00 GB: unchanged, 0.0 s" in capsys.readouterr().out.splitlines()


def test_a_delivery_that_took_no_time_has_a_rate(capsys):
    show_delivery("ship", delivered(seconds=0.0), "table")
    assert "moved" in capsys.readouterr().out


def test_every_file_of_a_delivery(capsys):
    show_delivery("fetch", delivered(), "wide")
    *_, blank, head, first, second = capsys.readouterr().out.splitlines()
    assert blank == ""
    assert head.split() == ["FILE", "BYTES", "SHA-256"]
    assert first.split() == ["config.json", "1,305", SHA]
    assert second.split() == ["model.safetensors", "47,000,000,000", SHA[::-1]]


def test_a_delivery_for_a_pipe(capsys):
    show_delivery("ship", delivered(), "name")
    assert capsys.readouterr().out == f"{DIGEST}\n"


# --- check ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("wrong", [(), (WRONG,)], ids=["right", "wrong"])
def test_a_check_as_a_document(capsys, form: str, wrong: tuple[WrongBytes, ...]):
    show_check(checked(*wrong), form)
    said = {
        "path": "model.safetensors", "firstByte": 67_108_864, "lastByte": 134_217_727,
        "why": "CRC-64/NVME 1, declared 2",
    }  # fmt: skip
    assert load(capsys.readouterr().out, form) == {
        "schemaVersion": "modelberth.dev/check/v1",
        "place": "s3://models/m/",
        "digest": DIGEST,
        "files": 2,
        "bytes": 47_000_001_305,
        "seconds": 12.346,
        "passed": not wrong,
        "wrong": [said] if wrong else [],
    }


def test_a_check_for_people(capsys):
    show_check(checked(), "table")
    assert capsys.readouterr().out.splitlines() == [
        "s3://models/m/: every byte is as declared (2 files, 47.00 GB, 12 s)", f"  {DIGEST}",
    ]  # fmt: skip
    show_check(checked(WRONG), "table")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("s3://models/m/: 1 range is wrong (")
    assert said[2].split() == ["FILE", "BYTES", "WHY"]
    assert said[3].split("  ") == ["model.safetensors", "67,108,864 to 134,217,727", "CRC-64/NVME 1, declared 2"]
    show_check(checked(WRONG), "name")
    assert capsys.readouterr().out == f"{DIGEST}\n"


# --- what was left behind ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_remains_as_a_document(capsys, form: str):
    show_remains("s3://models/m/", REMAINS, form, removed=True)
    assert load(capsys.readouterr().out, form) == {
        "schemaVersion": "modelberth.dev/garbage/v1",
        "place": "s3://models/m/",
        "removed": True,
        "items": [
            {"kind": "multipart upload", "name": "m/model.safetensors", "since": "2030-01-02T03:04:05+00:00"},
            {"kind": "blob", "name": "0123", "since": None},
        ],
    }


@pytest.mark.parametrize(("removed", "said"), [(True, "2 removed"), (False, "2 found; without --dry-run")])
def test_remains_for_people(capsys, removed: bool, said: str):
    show_remains("s3://models/m/", REMAINS, "table", removed=removed)
    shown = capsys.readouterr()
    head, first, second = shown.out.splitlines()
    assert head.split() == ["WHAT", "SINCE", "NAME"]
    assert first.split("  ") == ["multipart upload", "2030-01-02T03:04:05+00:00", "m/model.safetensors"]
    assert second.split() == ["blob", "0123"]
    assert shown.err.startswith(said)


def test_nothing_was_left_behind(capsys):
    show_remains("s3://models/m/", (), "table", removed=True)
    assert capsys.readouterr().out == "s3://models/m/: nothing was left behind\n"
    show_remains("s3://models/m/", (), "name", removed=True)
    assert capsys.readouterr().out == ""
    show_remains("s3://models/m/", REMAINS, "name", removed=True)
    assert capsys.readouterr().out == "m/model.safetensors\n0123\n"


# --- on the way ----------------------------------------------------------------------------------------


class Clock:
    """Seconds that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("modelberth.cli.display.Stopwatch", lambda: Stopwatch(lambda: self.now))


def test_a_long_transfer_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    display = LineDisplay()
    display(Note("", "s3://b/x/ has no manifest of files"))
    display(StageBegun("m", "ship", "to s3://models/m/"))
    for clock.now, done, files in ((10.0, 10**9, 0), (31.0, 31 * 10**8, 1), (45.0, 45 * 10**8, 1), (62.0, 10**10, 2)):
        display(BytesMoved("m", "ship", done, 10**10, files, 2))
    display(StageEnded("m", "ship", 62.0, "10.00 GB"))
    assert capsys.readouterr().err.splitlines() == [
        "[   0.0 s] s3://b/x/ has no manifest of files",
        "[   0.0 s] m: ship: to s3://models/m/",
        "[  31.0 s] m: ship: 1 of 2 files, 3.10 GB of 10.00 GB, 100.00 MB/s, 69 s left",
        "[  62.0 s] m: ship: took 62 s: 10.00 GB",
    ]


def test_a_transfer_of_uncounted_files_and_bytes(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    display = LineDisplay()
    display(StageBegun("m", "hash"))
    clock.now = 40.0
    display(BytesMoved("m", "hash", 4 * 10**9, 0))
    assert capsys.readouterr().err.splitlines()[-1] == "[  40.0 s] m: hash: 4.00 GB, 100.00 MB/s"
