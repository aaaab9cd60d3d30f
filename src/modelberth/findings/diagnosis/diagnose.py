"""The engine of diagnosis: logs and objects in, a ranked diagnosis out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from modelberth.findings.diagnosis.catalogue import catalogue
from modelberth.findings.diagnosis.described import MOST_BYTES, described_objects
from modelberth.findings.diagnosis.finding import Diagnosis
from modelberth.findings.diagnosis.matching import Patterns
from modelberth.findings.diagnosis.objects import Object, last_words, object_candidates
from modelberth.findings.diagnosis.ranking import diagnosis
from modelberth.findings.diagnosis.scan import Scanner
from modelberth.findings.diagnosis.signature import Signature


@dataclass(frozen=True)
class Log:
    """A log to read.

    Attributes:
        name: shown as the source of evidence.
        blocks: its bytes, in pieces of any size; gone through once.
        pod: that it is of, where its lines do not say.
        container: likewise.
        version: of vLLM, where its lines do not say.
    """

    name: str
    blocks: Iterable[bytes]
    pod: str = ""
    container: str = ""
    version: str = ""


class _Head:
    """Blocks that go by, of which the first are kept."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks
        self.kept = b""

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            if len(self.kept) < MOST_BYTES:
                self.kept += block[: MOST_BYTES - len(self.kept)]
            yield block


@cache
def _own_patterns() -> Patterns:
    return Patterns(catalogue().values())


def diagnose_objects(
    objects: Iterable[Object], logs: Sequence[Log] = (), signatures: Mapping[str, Signature] | None = None
) -> Diagnosis:
    """What objects and logs say together.

    Args:
        objects: of Kubernetes, as the API gives them, each with its kind. What their containers said last is read
            as a log where none of that container is given.
        logs: of their containers, or of anything else.
        signatures: by id; the package's own when not given.
    """
    known = (catalogue() if signatures is None else signatures).values()
    scanner = Scanner(_own_patterns() if signatures is None else Patterns(known))
    scans, shown = [], list(objects)
    given = {(log.pod, log.container) for log in logs}
    words = [
        Log(each.name, [each.text.encode("utf-8", "replace")], each.pod, each.container)
        for each in last_words(shown)
        if not each.pod or (each.pod, each.container) not in given
    ]
    for log in (*logs, *words):
        head = _Head(log.blocks)
        scans.append(scanner.scan(log.name, head, pod=log.pod, container=log.container, version=log.version))
        shown += described_objects(head.kept, log.name)
    return diagnosis(scans, object_candidates(shown, known))


def diagnose_logs(logs: Sequence[Log], signatures: Mapping[str, Signature] | None = None) -> Diagnosis:
    """What logs say."""
    return diagnose_objects((), logs, signatures)
