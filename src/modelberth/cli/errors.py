"""Errors to messages and exit codes: the one boundary where everything that escapes is caught.

A message says what, where, why and the next command, each on a line of its own. A traceback is shown for a bug
of ours only when BERTH_DEBUG is set; otherwise it goes to a file that the message names.
"""

from __future__ import annotations

import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import click

from modelberth.base.errors import BerthError, Interrupted
from modelberth.cli.output import talk

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guard(run: Callable[[], Any]) -> int:
    """Run a command and return its exit code; no error and no signal gets past."""
    catch_signals()
    try:
        return _outcome(run)
    except BrokenPipeError:
        # Whoever read our output has seen enough, as `head` does. Keep Python from complaining at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
        return 128 + signal.SIGPIPE


def _outcome(run: Callable[[], Any]) -> int:
    try:
        result = run()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _usage(error)
    except BerthError as error:
        talk(*message(error))
        return error.exit_code
    except Interrupted as interrupted:
        talk(f"stopped by {signal.Signals(interrupted.signal_number).name}")
        return interrupted.exit_code
    except BrokenPipeError:
        raise
    except Exception:  # noqa: BLE001 - the outermost boundary: a bug of ours must not show a traceback
        return _bug()


def message(error: BerthError) -> list[str]:
    """The lines of an error: what, where, why, next."""
    lines = [f"error: {error.what}"]
    lines += [f"  where: {error.where}"] if error.where else []
    why = error.why.splitlines()
    lines += [f"  why:   {why[0]}", *(f"         {line}" for line in why[1:])] if why else []
    lines += [f"  next:  {error.next_step}"] if error.next_step else []
    return lines


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        talk(error.format_message())
        return 2
    context = getattr(error, "ctx", None)
    lines = [f"error: {error.format_message()}"]
    if context:
        lines.append(f"  next:  {context.command_path} --help")
    talk(*lines)
    return 2


def catch_signals() -> None:
    """The first signal ends us in order; a second one at once (the keepers then stop what is left).

    Called again by who has gone on after an Interrupted: the next signal is a first one then.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, lambda again, _frame: os._exit(128 + again))
        raise Interrupted(number)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, stop)


def _bug() -> int:
    text = traceback.format_exc()
    if os.environ.get("BERTH_DEBUG"):
        talk(text)
        return 1
    talk(f"error: this is a bug in berth: {text.strip().splitlines()[-1]}")
    with suppress(OSError):
        with tempfile.NamedTemporaryFile("w", prefix="berth-bug-", suffix=".txt", delete=False) as file:
            file.write(text)
        talk(f"  where: {file.name}")
    talk("  next:  report it with that file; BERTH_DEBUG=1 shows it here")
    return 1
