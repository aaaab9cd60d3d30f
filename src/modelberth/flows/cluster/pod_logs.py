"""What pods say of their start, read a piece at a time: the engine's log, the fetcher's last line, the image's size.

A log is read on from where it was left, so that a stage once reached is never forgotten, however much is said after
it; a restart begins anew. Nothing more is read of an engine that has said all that its start says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from modelberth.adapters.at_once import at_once
from modelberth.adapters.kubernetes_api import Cluster
from modelberth.adapters.kubernetes_api.kinds import EVENTS
from modelberth.base.errors import BerthError
from modelberth.timeline.log_lines import parse_line
from modelberth.timeline.pod_state import PodLog, PodState, progress
from modelberth.timeline.pod_times import IMAGE, instant
from modelberth.timeline.stages import SERVER, StartUp

_AT_ONCE = 8
_BYTES_A_LOOK = 8 << 20
# Nodes write their own zone, and as many digits of a second as there are without zeros at the end.
_STAMP = re.compile(rb"(?P<date>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<part>\d{1,9}))?(?P<zone>Z|[+-]\d\d:\d\d) ?")
# kubelet, images: `Successfully pulled image "x" in 2m3s (2m3s including waiting). Image size: 8123456789 bytes.`
_PULLED = re.compile(r"Image size: (\d{1,18}) bytes")


@dataclass
class _Read:
    """How far the log of one run was read; `until` in seconds since 1970 and nanoseconds."""

    run: tuple[str, int]
    start: StartUp
    until: tuple[int, int] = (0, -1)


class PodLogs:
    """Reads pods of one namespace; what was read is kept as long as the pod is."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._reads: dict[str, _Read] = {}
        self._fetched: dict[str, str] = {}
        self._images: dict[str, int | None] = {}

    def of(self, name: str) -> PodLog:
        """What was read of a pod."""
        read = self._reads.get(name)
        fetched, image = self._fetched.get(name, ""), self._images.get(name)
        return PodLog(read.start, read.run[1], fetched, image) if read else PodLog(None, 0, fetched, image)

    def forget(self, names: Iterable[str]) -> None:
        """These pods are gone."""
        for name in names:
            for known in (self._reads, self._fetched, self._images):
                known.pop(name, None)

    def read(self, pods: Iterable[PodState]) -> set[str]:
        """Read on, several at a time; names of the pods of which something is another now."""
        due = [each for each in pods if self._is_due(each)]
        looked = at_once(self._look, due, _AT_ONCE)
        return {pod.name for pod, changed in zip(due, looked, strict=True) if changed}

    def _is_due(self, pod: PodState) -> bool:
        return bool(pod.fetcher) or self._wants_log(pod) or self._wants_image(pod)

    def _wants_log(self, pod: PodState) -> bool:
        if not pod.engine or pod.ready:
            return False
        read = self._reads.get(pod.name)
        if read is None or read.run != _run(pod):
            return True
        return pod.runs and read.start.stage != SERVER

    def _wants_image(self, pod: PodState) -> bool:
        starts = not pod.ready and progress(pod.stage) > progress(IMAGE)  # of a thousand that serve nobody asks it
        return starts and pod.name not in self._images and bool(pod.uid)

    def _look(self, pod: PodState) -> bool:
        before = self.of(pod.name), self._stage(pod)
        if self._wants_image(pod):
            self._images[pod.name] = self._image_bytes(pod)
        with suppress(BerthError):  # a container that has just ended, a right that is missing: told as it was
            if self._wants_log(pod):
                self._read_start(pod)
            elif pod.fetcher:
                self._fetched[pod.name] = self._last_line(pod)
        return before != (self.of(pod.name), self._stage(pod))

    def _stage(self, pod: PodState) -> str:
        read = self._reads.get(pod.name)
        return read.start.stage if read else ""

    def _last_line(self, pod: PodState) -> str:
        last = b""
        for line in self._cluster.logs(self._namespace, pod.name, pod.fetcher, tail=1):
            last = line
        return last.decode(errors="replace")

    def _read_start(self, pod: PodState) -> None:
        read = self._reads.get(pod.name)
        if read is None or read.run != _run(pod):
            read = _Read(_run(pod), StartUp(pod.started or 0.0))
        for second, part, line in self._lines(pod, read.until[0]):
            if (second, part) > read.until:  # this second was read before, up to there
                read.until = (second, part)
                read.start.feed(parse_line(line.decode(errors="replace")), second + part / 1e9)
        self._reads[pod.name] = read

    def _lines(self, pod: PodState, second: int) -> Iterator[tuple[int, int, bytes]]:
        since = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if second else ""
        lines = self._cluster.logs(
            self._namespace, pod.name, pod.engine, timestamps=True, since=since, most_bytes=_BYTES_A_LOOK
        )  # fmt: skip
        for line in lines:
            if match := _STAMP.match(line):
                stamp = instant((match["date"] + match["zone"]).decode())
                part = int((match["part"] or b"0").decode().ljust(9, "0"))
                yield int(stamp or 0), part, line[match.end() :]

    def _image_bytes(self, pod: PodState) -> int | None:
        """As the kubelet told when it had pulled it; None where it did not, or events may not be seen."""
        fields = f"involvedObject.uid={pod.uid},reason=Pulled"
        try:
            events = self._cluster.list(EVENTS, self._namespace, fields=fields).items
        except BerthError:
            return None
        for event in events:
            about = (event.get("involvedObject") or {}).get("fieldPath", "")
            match = _PULLED.search(str(event.get("message") or ""))
            if match and (not about or f"{{{pod.engine}}}" in about):
                return int(match[1])
        return None


def _run(pod: PodState) -> tuple[str, int]:
    return (pod.uid, pod.restarts)
