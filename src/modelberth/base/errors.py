"""Every error a user can meet, by meaning. The command line turns each into a message and an exit code.

    BerthError
    +-- UsageError             2  the command or the spec is wrong
    |   +-- SpecError          2  berth.yaml: one or more problems, each with its position
    +-- PrerequisiteMissing    3  something must be installed or started first
    +-- AuthError              4  authentication or permission
    +-- Conflict               5  somebody or something else holds it
    +-- NotReady               6  timed out, or stopped before it was ready
    +-- IntegrityError         7  bytes, headers or answers are not as declared
    +-- DoesNotFit             8  GPU memory, disk, quota
    +-- RemoteUnavailable      9  a remote did not answer after retries
    Interrupted          128 + n  a signal asked us to stop

An error says what happened, where, why, and the next command to type. It never carries a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


class BerthError(Exception):
    """An error with a meaning of its own; `exit_code` is part of the command line's contract.

    Args:
        what: what went wrong, one sentence without a full stop.
        where: the file, object, address or process it happened at.
        why: the cause as far as it is known.
        next_step: the command or the change that leads on.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step


class UsageError(BerthError):
    """The command line or an input file cannot be taken as it is."""

    exit_code = 2


class PrerequisiteMissing(BerthError):
    """Something outside of us must be installed or started first."""

    exit_code = 3


class AuthError(BerthError):
    """The other side refused who we are or what we may do."""

    exit_code = 4


class Conflict(BerthError):
    """Somebody else holds what this needs: a port, a lock, a field."""

    exit_code = 5


class NotReady(BerthError):
    """It was not ready in time, or it ended before it was."""

    exit_code = 6


class IntegrityError(BerthError):
    """Bytes, a header or an answer are not what was declared."""

    exit_code = 7


class DoesNotFit(BerthError):
    """There is not enough memory, disk or quota."""

    exit_code = 8


class RemoteUnavailable(BerthError):
    """A remote gave no usable answer after the retries."""

    exit_code = 9


class Interrupted(BaseException):
    """A signal asked us to stop. No `except Exception` on the way, ours or a library's, can swallow it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """128 + n, as shells report a death by signal n."""
        return 128 + self.signal_number


@dataclass(frozen=True)
class Problem:
    """One thing wrong in an input file.

    Attributes:
        line: 1-based; 0 where the position is unknown.
        column: 1-based; 0 where unknown.
        path: the key, as `models[0].variants[1].pool`; empty for the whole file.
        message: what was found and what was expected.
        suggestion: what to write instead, if that is known.
    """

    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""

    def text(self, source: str) -> str:
        """One line: `berth.yaml:14:7: models[0].pool: message (suggestion)`."""
        position = f"{source}:{self.line}:{self.column}" if self.line else source
        key = f" {self.path}:" if self.path else ""
        hint = f" ({self.suggestion})" if self.suggestion else ""
        return f"{position}:{key} {self.message}{hint}"


@dataclass(frozen=True)
class Problems:
    """All that is wrong in one file, in file order."""

    source: str
    items: tuple[Problem, ...] = field(default_factory=tuple)

    def lines(self) -> tuple[str, ...]:
        """One text line for each problem."""
        return tuple(problem.text(self.source) for problem in self.items)


class SpecError(UsageError):
    """An input file that cannot be taken; lists every problem at once."""

    def __init__(self, problems: Problems, *, next_step: str = "") -> None:
        count = len(problems.items)
        noun = "problem" if count == 1 else "problems"
        super().__init__(f"{count} {noun} in {problems.source}", why="\n".join(problems.lines()), next_step=next_step)
        self.problems = problems
