"""Several questions at once: in their order, several at a time, and nobody waits for those that do not end."""

from __future__ import annotations

import signal
import subprocess
import sys
from threading import Barrier

import pytest

from modelberth.adapters.at_once import at_once

PATIENCE = 50


def test_results_keep_their_order_and_run_together() -> None:
    together = Barrier(3)

    def run(number: int) -> int:
        together.wait(PATIENCE)  # passes only when three are at it
        return number * 2

    assert at_once(run, range(6), 3) == [0, 2, 4, 6, 8, 10]
    assert at_once(str, [], 3) == []


def test_the_first_failure_is_raised() -> None:
    def run(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two"):
        at_once(run, range(50), 4)


def test_a_signal_ends_the_waiting_and_the_program() -> None:
    code = (
        "import threading; from modelberth.adapters.at_once import at_once\n"
        "def run(number):\n"
        "    print('begun', flush=True)\n"
        "    threading.Event().wait()\n"
        "at_once(run, range(4), 2)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
