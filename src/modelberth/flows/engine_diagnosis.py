"""What the log of an engine of our own says after it has failed: the first finding, where a signature knows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelberth.base.errors import BerthError
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs
from modelberth.flows.log_files import LogFile


@dataclass(frozen=True)
class Explanation:
    """Why an engine failed, as an error says it.

    Attributes:
        why: the cause.
        next_step: what leads on.
    """

    why: str
    next_step: str


def explain_engine(log: Path, otherwise: str) -> Explanation:
    """Explain a failed engine.

    Args:
        log: its whole output.
        otherwise: the cause that was read while it ran, for when no signature knows the failure.
    """
    try:
        file = LogFile(log)
        findings = diagnose_logs([Log(file.name, file.blocks())]).findings
    except BerthError:  # the log is gone: what was read of it meanwhile still counts
        findings = ()
    if not findings:
        return Explanation(otherwise, f"less {log}")
    first = findings[0]
    return Explanation(f"{first.cause} ({first.id})", f"{first.fix} More: berth diagnose --log {log}")
