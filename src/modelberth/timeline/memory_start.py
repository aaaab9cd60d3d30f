"""One start of an engine as its log tells it: where it begins, what it says about memory, how it ends."""

from __future__ import annotations

import re
from collections.abc import Mapping

from modelberth.catalog import load
from modelberth.timeline.engine_arguments import engine_arguments, speaks_of_a_server
from modelberth.timeline.log_message import Message
from modelberth.timeline.memory_figures import Figures
from modelberth.timeline.memory_wordings import beginnings, wordings

SERVER = "server"
OFFLINE = "offline"
OUT_OF_MEMORY = "oom"

# What tells how a start ended.
_SERVER_UP, _ENGINE_UP, _SAID, _GUESSED, _WRAPPER = "server up", "engine up", "said", "guessed", "wrapper"

# Lines with which a start begins, in their order; one that is not later than the last of its start begins a new one.
_BANNER, _ARGUMENTS, _ENGINE = 1, 2, 3

_VERSION = re.compile(r"\bversion (?P<version>[0-9][\w.+-]{0,79})")
_LOGO = re.compile(r"[▄█▀ ]{8,80}version [0-9]")
_ENGINE_LINE = re.compile(r"Initializing a (?P<engine>V[01]) LLM engine \(v(?P<version>[^\s()]{1,80})\)")
_CONFIG = " with config: "
_NUMBERED_ENGINE = re.compile(r"EngineCore_(?:DP)?\d{1,6}")
# .../E=128,N=768,device_name=NVIDIA_H100_80GB_HBM3.json, and with ",dtype=fp8_w8a8" before the end
_DEVICE_NAME = re.compile(r"device_name=(?P<name>\w[\w.-]{0,79}?)(?:,|\.json)")
# nvidia-smi -L, and vLLM's own list of the environment
_LISTED_GPU = re.compile(
    r"(?:GPU models and configuration: )?GPU \d{1,3}: (?P<name>(?:NVIDIA|AMD) [\w .-]{1,60})(?: \(UUID.*)?"
)


def _mark(text: str) -> int:
    """Which of the lines a message is with which a start begins; 0 for none."""
    if text.startswith(beginnings("engine")):
        return _ENGINE
    if text.startswith(beginnings("arguments")):
        return _ARGUMENTS
    return _BANNER if text.startswith(beginnings("banner")) or _LOGO.match(text) else 0


class Start:
    """A start that is being read.

    Attributes:
        figures: numbers and arguments so far.
        texts: vllm_version, entrypoint, gpu_name and model_runner, as far as they are known.
    """

    def __init__(self) -> None:
        self.figures = Figures()
        self.texts: dict[str, str] = {}
        self._evidence: dict[str, int] = {}
        self._mark = 0
        self._engines: set[str] = set()
        self._engine = ""
        self._phase = ""
        self._said_failure = ""
        self._guessed_failure = ""
        self._lines: dict[str, int] = {}

    def is_over(self, message: Message) -> bool:
        """Whether a message belongs to the next start."""
        mark = _mark(message.text)
        if not mark:
            return False
        if not self._mark:
            return bool(self.figures.numbers) or self.started is not None
        return mark <= self._mark and not (mark == _ENGINE and self._is_one_more_engine(message))

    def _is_one_more_engine(self, message: Message) -> bool:
        """Data parallelism has several engines in one start, until one of them tells how it ended."""
        if self.started is not None:
            return False
        numbered = all(map(_NUMBERED_ENGINE.fullmatch, (message.process, *self._engines)))
        declared = self.figures.arguments.get("data-parallel-size", "1") != "1"
        return declared or (numbered and message.process not in self._engines)

    def feed(self, message: Message, line: int) -> None:
        """Take a message of this start. What a server logs once it is up is about requests and is passed over."""
        if _SERVER_UP in self._lines:
            return
        self._read_beginning(message, line)
        self._read_names(message, line)
        self._read_failures(message.text, line)
        for wording in wordings("figures"):
            if wording.fits(message.text):
                for figure in wording.figures(message.text):
                    self.figures.keep(figure, line)
        self._read_progress(message.text, line)

    def _note(self, name: str, value: str, line: int) -> None:
        if self.texts.get(name) != value:
            self.texts[name] = value
            self._evidence[name] = line

    def _read_beginning(self, message: Message, line: int) -> None:
        text, mark = message.text, _mark(message.text)
        self._mark = max(self._mark, mark)
        if mark == _BANNER:
            self._note("entrypoint", SERVER, line)
            if match := _VERSION.search(text):
                self._note("vllm_version", match["version"], line)
        elif mark == _ARGUMENTS:
            opening = next(beginning for beginning in beginnings("arguments") if text.startswith(beginning))
            self._read_arguments(text[len(opening) :], line)
        elif mark == _ENGINE and (match := _ENGINE_LINE.match(text)):
            self._engine = match["engine"]
            self._engines.add(message.process)
            self._note("vllm_version", match["version"], line)
            self.figures.keep_arguments(engine_arguments(text.partition(_CONFIG)[2]), line)

    def _read_arguments(self, listed: str, line: int) -> None:
        self.figures.keep_arguments(engine_arguments(listed), line)
        if "entrypoint" in self.texts:
            return
        if speaks_of_a_server(listed):
            self._note("entrypoint", SERVER, line)
        elif "'disable_log_stats': True" in listed:  # the LLM class sets it, a server does not
            self._note("entrypoint", OFFLINE, line)

    def _read_names(self, message: Message, line: int) -> None:
        text = message.text
        if message.process.lower().startswith("apiserver"):
            self._note("entrypoint", SERVER, line)
        if text.startswith(beginnings("offline")) and "entrypoint" not in self.texts:
            self._note("entrypoint", OFFLINE, line)
        if runner := self._runner(message):
            self._note("model_runner", runner, line)
        named = _DEVICE_NAME.search(text) if text.startswith(beginnings("deviceNames")) else _LISTED_GPU.fullmatch(text)
        if named and "gpu_name" not in self.texts:
            self._note("gpu_name", named["name"].replace("_", " ").strip(), line)

    def _runner(self, message: Message) -> str:
        for wording in wordings("runner", "runner"):
            if wording.fits(message.text):
                return wording.tag
        if self._engine == "V1" and message.text.startswith(beginnings("runnerTells")):
            files: Mapping[str, str] = load("memory_log")["runnerFiles"]
            return files.get(message.source, "")
        return ""

    def _read_failures(self, text: str, line: int) -> None:
        for wording in wordings("failures", "failure"):
            if not wording.fits(text):
                continue
            for figure in wording.figures(text):
                self.figures.keep(figure, line)
            if wording.tag == OUT_OF_MEMORY:
                if not self._guessed_failure:
                    self._guessed_failure = self._out_of_memory()
                    self._lines[_GUESSED] = line
            elif not self._said_failure:
                self._said_failure = wording.tag
                self._lines[_SAID] = line
        if text.startswith(beginnings("failedToStart")):
            self._lines.setdefault(_WRAPPER, line)

    def _out_of_memory(self) -> str:
        """The name of a failure whose text is PyTorch's, by the phase in which it comes.

        Without graphs, and when one engine is up and another one is not, the phase is not known.
        """
        eager = self._phase == "graphs" and self.figures.arguments.get("enforce-eager") == "true"
        if eager or _ENGINE_UP in self._lines:
            return OUT_OF_MEMORY
        names: Mapping[str, str] = load("memory_log")["oomInPhase"]
        return names.get(self._phase, OUT_OF_MEMORY)

    def _read_progress(self, text: str, line: int) -> None:
        order = [wording.tag for wording in wordings("phases", "phase")]
        for wording in wordings("phases", "phase"):
            if wording.fits(text) and (not self._phase or order.index(wording.tag) > order.index(self._phase)):
                self._phase = wording.tag
        if text.startswith(beginnings("engineUp")):
            self._lines[_ENGINE_UP] = line
        if text.startswith(beginnings("serverUp")):
            self._lines[_SERVER_UP] = line
            self._note("entrypoint", SERVER, line)

    def _end(self) -> str:
        """What tells how the start ended; empty when nothing does. Wrappers repeat what an engine failed of."""
        order = (_SERVER_UP, _SAID, _WRAPPER, _ENGINE_UP, _GUESSED)
        return next((end for end in order if end in self._lines), "")

    @property
    def started(self) -> bool | None:
        """True when it came up, False when it did not, None when the log ends before either."""
        end = self._end()
        return end in (_SERVER_UP, _ENGINE_UP) if end else None

    @property
    def failure(self) -> str | None:
        """The short name of what the start failed of; None when it came up, or failed of something else."""
        return None if self.started is not False else (self._said_failure or self._guessed_failure or None)

    @property
    def evidence(self) -> dict[str, int]:
        """Line of everything that is known."""
        known = {**self.figures.evidence, **self._evidence}
        if end := self._end():
            known["started"] = self._lines[end]
        if self.failure:
            known["failure"] = self._lines[_SAID if self._said_failure else _GUESSED]
        return known
