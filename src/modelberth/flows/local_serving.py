"""The engines of `berth up`: started, followed through their stages, kept in view, and stopped together."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from modelberth.adapters import machine, processes, vllm_engine
from modelberth.adapters.openai_api import Endpoint
from modelberth.adapters.vllm_engine import Runtime
from modelberth.base.clock import Clock, monotonic
from modelberth.base.errors import BerthError, Conflict, NotReady
from modelberth.base.units import format_seconds
from modelberth.catalog.engines import LocalEngine
from modelberth.findings.cause import CauseFinder
from modelberth.flows.engine_diagnosis import explain_engine
from modelberth.flows.progress import Listener, StageBegun
from modelberth.flows.stage_clock import StageClock
from modelberth.flows.state import State
from modelberth.manifests.engine_args import LocalArguments
from modelberth.timeline.log_lines import parse_line
from modelberth.timeline.stages import PROCESS, READY, SERVER, StartUp

_HEALTH_SECONDS = 1.0
_PORT_TAKEN = "ddress already in use"


@dataclass
class Engine:
    """One running engine.

    Attributes:
        name: of its service.
        url: of its endpoint.
        log: its whole output.
        start_up: the stages so far.
    """

    name: str
    url: str
    log: Path
    start_up: StartUp
    clock: StageClock
    child: processes.Child
    port: machine.Port
    endpoint: Endpoint
    causes: CauseFinder = field(default_factory=CauseFinder)
    reported: int = 0


class Engines:
    """The engines of one run. Use as a context manager: at the end, whatever the end, all of them are stopped."""

    def __init__(self, listener: Listener, clock: Clock = monotonic) -> None:
        self._listener, self._clock = listener, clock
        self._lines: Queue[tuple[str, str]] = Queue()
        self._engines: dict[str, Engine] = {}

    @property
    def all(self) -> tuple[Engine, ...]:
        """The engines, in the order they were started."""
        return tuple(self._engines.values())

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_reason: object) -> None:
        for engine in self.all:
            engine.child.release()
        for engine in self.all:
            engine.child.stop()
            engine.endpoint.close()
            engine.port.release()

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        port: machine.Port,
        log: Path,
        stages: StageClock,
    ) -> Engine:
        """Start one engine; it loads in the background."""
        scratch = Path(
            tempfile.mkdtemp(prefix="berth-")
        )  # short: engines put sockets there, and those have 107 characters
        start_up = StartUp(self._clock())
        child = processes.start(
            command,
            log=log,
            on_line=lambda line: self._lines.put((name, line)),
            environment={**environment, "TMPDIR": str(scratch)},
            scratch=scratch,
        )
        url = f"http://{machine.LOOPBACK}:{port.number}"
        engine = Engine(name, url, log, start_up, stages, child, port, Endpoint(url))
        self._engines[name] = engine
        self._listener(StageBegun(name, PROCESS))
        return engine

    def wait_ready(self, timeout: float) -> None:
        """Follow all engines until every one answers.

        Raises:
            NotReady: one ended, or `timeout` seconds passed.
            Conflict: one found its port taken.
        """
        deadline = self._clock() + timeout
        next_look = self._clock() + _HEALTH_SECONDS
        while any(engine.start_up.stage != READY for engine in self.all):
            self._follow(_HEALTH_SECONDS / 4)
            now = self._clock()
            if now > deadline:
                raise self._too_slow(timeout)
            if now >= next_look or any(engine.start_up.stage == SERVER for engine in self.all):
                next_look = now + _HEALTH_SECONDS
                self._look()

    def watch(self, seconds: float) -> None:
        """Follow running engines for a while.

        Raises:
            NotReady: one ended.
        """
        self._follow(seconds)

    def _follow(self, seconds: float) -> None:
        """Take log lines as they come; an engine that has ended is an error."""
        try:
            self._take(*self._lines.get(timeout=seconds))
            while True:
                self._take(*self._lines.get_nowait())
        except Empty:
            pass
        for engine in self.all:
            code = engine.child.poll()
            if code is not None:
                raise self._ended(engine, code)

    def _take(self, name: str, line: str) -> None:
        engine = self._engines[name]
        parsed = parse_line(line)
        engine.causes.feed(parsed)
        begun = engine.start_up.feed(parsed, self._clock())
        self._report(engine)
        if begun:
            self._listener(StageBegun(engine.name, begun))

    def _report(self, engine: Engine) -> None:
        for ended in engine.start_up.ended[engine.reported :]:
            engine.clock.ended(ended.stage, ended.seconds)
            engine.reported += 1

    def _look(self) -> None:
        """An endpoint that answers is ready, whatever its log says or does not say."""
        for engine in self.all:
            if engine.start_up.stage != READY and engine.endpoint.is_healthy():
                engine.start_up.ready(self._clock())
                self._report(engine)

    def _ended(self, engine: Engine, code: int) -> BerthError:
        engine.child.stop()  # it has ended; this waits until its log has been read to the end
        while not self._lines.empty():
            self._take(*self._lines.get_nowait())
        cause = engine.causes.cause or ""
        if _PORT_TAKEN in cause:
            return Conflict(
                f"the port of {engine.name} is taken",
                where=engine.url,
                why=cause,
                next_step="leave --port out to get a free one",
            )
        said = explain_engine(engine.log, cause)
        was = "while it served" if engine.start_up.stage == READY else f"in stage {engine.start_up.stage}"
        return NotReady(
            f"the engine of {engine.name} ended {was}: {_how(code)}",
            where=str(engine.log),
            why=said.why,
            next_step=said.next_step,
        )

    def _too_slow(self, timeout: float) -> NotReady:
        late = next(engine for engine in self.all if engine.start_up.stage != READY)
        said = explain_engine(late.log, late.causes.cause or "")
        return NotReady(
            f"{late.name} was not ready after {format_seconds(timeout)}; it is in stage {late.start_up.stage}",
            where=str(late.log),
            why=said.why,
            next_step=f"{said.next_step}; or allow more with --timeout",
        )


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    named = {number.value: number.name for number in signal.Signals}
    name = named.get(-code, f"signal {-code}")
    hint = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


def engine_environment(state: State, cores: str) -> dict[str, str]:
    """The environment of a local engine: offline, no reports home, caches in the state folder, no credentials.

    Args:
        state: where caches are kept.
        cores: processors that it computes on, as VLLM_CPU_OMP_THREADS_BIND takes them.
    """
    return vllm_engine.clean_environment(
        {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_HOST_IP": machine.LOOPBACK,  # its own processes talk over loopback
            "VLLM_LOGGING_LEVEL": "INFO",  # the stages are read from the log
            "VLLM_CACHE_ROOT": str(state.cache / "vllm"),
            "XDG_CACHE_HOME": str(state.cache),
            "HF_HOME": str(state.cache / "huggingface"),
            "TORCHINDUCTOR_CACHE_DIR": str(state.cache / "inductor"),
            "VLLM_CPU_OMP_THREADS_BIND": cores,
            "PYTHONUNBUFFERED": "1",
        }
    )


def share_cores(cores: Sequence[int], engines: int) -> tuple[str, ...]:
    """Processors for each engine: neighbours together, none shared; `nobind` where there are too few.

    vLLM's own choice gives every engine of a machine the same processors.
    """
    if engines == 1:
        return ("auto",)
    each = len(cores) // engines
    if each == 0:
        return ("nobind",) * engines
    return tuple(_text(cores[index * each : (index + 1) * each]) for index in range(engines))


def _text(cores: Iterable[int]) -> str:
    return ",".join(str(core) for core in cores)


def serve(runtime: Runtime, engine: LocalEngine, arguments: LocalArguments) -> list[str]:
    """The command line of one engine."""
    return vllm_engine.serve_command(runtime, engine.module, arguments.texts())
