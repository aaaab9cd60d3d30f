"""The form of a signature: what is matched, and what is said then. Strict: an unknown key is an error.

How each field is read is told in `catalogue`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from modelberth.findings.diagnosis.finding import Severity

FIELDS = (
    "GPU", "KV", "MEM", "DRV", "NCC", "JIT", "RAY", "WGT", "CFG", "TOK", "ARG", "QNT", "DEP", "PRM", "STO", "OCI",
    "KUE", "SCH", "PRB", "NET", "REQ", "DSK", "SYS",
)  # fmt: skip
Origin = Literal["exception", "error", "warning", "info", "output", "usage", "any"]
Unit = Literal[
    "tokens", "GiB", "MiB", "KiB", "GB", "MB", "bytes", "GPUs", "seconds", "percent", "count", "number", "version",
    "text",
]  # fmt: skip
TEXTS: frozenset[Unit] = frozenset({"version", "text"})
"""Units whose values are no numbers."""
Text = Annotated[str, StringConstraints(min_length=1)]
Needle = Annotated[str, StringConstraints(min_length=4)]
Id = Annotated[str, StringConstraints(pattern=rf"^MB-(?:{'|'.join(FIELDS)})-[0-9]{{3}}$")]


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=_hyphens, populate_by_name=True)


class EventMatch(_Strict):
    """An event by its fields."""

    reason: Text
    message: str | None = None
    kind: str | None = None
    component: str | None = None
    count: int = Field(default=1, ge=1)
    restarts: int = Field(default=0, ge=0)


class ConditionMatch(_Strict):
    """A condition of an object by its fields."""

    kind: Text
    type: Text
    status: Literal["True", "False", "Unknown"] | None = None
    reason: str | None = None
    message: str | None = None


class ContainerMatch(_Strict):
    """A container's state, now or before its last restart, by its fields."""

    state: Literal["waiting", "running", "terminated"] | None = None
    reason: str | None = None
    exit_code: int | None = Field(default=None, alias="exitCode")
    message: str | None = None
    name: str | None = None
    init: bool | None = None
    restarts: int = Field(default=0, ge=0)


class PodMatch(_Strict):
    """A pod's status by its fields."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] | None = None
    reason: str | None = None
    message: str | None = None
    gate: str | None = None


class Match(_Strict):
    """One pattern of evidence: either of a log, or of one kind of field."""

    log: Text | None = None
    needle: Needle | Annotated[tuple[Needle, ...], Field(min_length=1)] | None = None
    origin: Origin = "any"
    exceptions: tuple[Text, ...] = ()
    frames: tuple[Text, ...] = ()
    source: tuple[Text, ...] = ()
    container: tuple[Text, ...] = ()
    vllm: str | None = None
    last: bool = False
    during: tuple[Text, ...] = ()
    event: EventMatch | None = None
    condition: ConditionMatch | None = None
    pod_container: ContainerMatch | None = None
    pod: PodMatch | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Match:
        kinds = [self.log, self.event, self.condition, self.pod_container, self.pod]
        if sum(each is not None for each in kinds) != 1:
            raise ValueError("exactly one of log, event, condition, container (with fields) and pod is expected")
        if self.log is not None and self.needle is None:
            raise ValueError("a log pattern needs its needle: a literal that every line of it has")
        only_log = (
            self.needle, self.exceptions, self.frames, self.source, self.container, self.vllm, self.last, self.during,
        )  # fmt: skip
        if self.log is None and (any(only_log) or self.origin != "any"):
            raise ValueError(
                "needle, origin, exceptions, frames, source, container (names), vllm, last and during go with log"
            )
        return self

    @property
    def needles(self) -> tuple[str, ...]:
        """The literals of which every line that matches has at least one."""
        return (self.needle,) if isinstance(self.needle, str) else self.needle or ()


class Signature(_Strict):
    """One failure that is known."""

    id: Id
    title: Text
    severity: Severity
    stage: str = ""
    root: int = Field(default=50, ge=0, le=100)
    phase: Literal["start", "serving", "request"] = "start"
    match: Annotated[tuple[Match, ...], Field(min_length=1)]
    numbers: dict[str, Unit] = Field(default_factory=dict)
    cause: Text
    cause_without: str | None = None
    fix: Text
    fix_without: str | None = None
    patch: dict[str, str | int | float | bool] = Field(default_factory=dict)
    command: str = ""
    confirm: str = ""
    explains: tuple[Id, ...] = ()
    links: tuple[Annotated[str, StringConstraints(pattern=r"^https://\S+$")], ...] = ()
    page: Text
