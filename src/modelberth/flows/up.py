"""`berth up`: the whole story of a stack on this machine, with real vLLM.

    read the spec -> size each variant -> ship -> fetch back, verified -> start the engines -> wait
    -> verify with real requests -> ask every variant the same -> report, and keep serving

`bring_up` is a context manager: while its block runs the endpoints answer; after it, nothing runs any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelberth.adapters import machine
from modelberth.adapters.files import disk_errors, locked
from modelberth.adapters.vllm_engine import Runtime
from modelberth.base.clock import Stopwatch, utc_now
from modelberth.base.errors import UsageError
from modelberth.base.text import did_you_mean
from modelberth.base.units import format_binary
from modelberth.catalog.engines import LocalEngine
from modelberth.flows.ask import DEFAULT_PROMPTS, Interview, ask, recovery
from modelberth.flows.local_delivery import Delivered, Delivery, require_delivery_room, service_source
from modelberth.flows.local_serving import Engine, Engines, engine_environment, serve, share_cores
from modelberth.flows.progress import Listener, Note
from modelberth.flows.runtime import DEFAULT_ENGINE, choose_runtime, known_engine
from modelberth.flows.source import Source
from modelberth.flows.stage_clock import StageClock, StageReport
from modelberth.flows.state import StackFolder, State, new_run, open_state
from modelberth.flows.verify import Check, verify
from modelberth.manifests.engine_args import LocalArguments, LocalSeat, engine_arguments, local_arguments
from modelberth.sizing.local import LocalPlan, plan_local
from modelberth.spec.reading import read_stack
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack

DEFAULT_TIMEOUT = 900.0
_MEMORY_SHARE = 0.9
"""Share of the free memory that is planned with; the rest stays for berth, the S3 server and the page cache."""


@dataclass(frozen=True)
class UpRequest:
    """What `berth up` is asked for.

    Attributes:
        spec: path of berth.yaml.
        state: state folder; None for the default.
        engine: name of the local engine.
        python: an interpreter that has vLLM, instead of the installed engine.
        first_port: port of the first service, the next ones count up; 0 for free ones.
        ports: port by service name, before `first_port`.
        timeout: seconds until every engine must answer.
        kv_cache: bytes of each CPU engine's KV cache; None for what a few full-length requests need.
    """

    spec: Path
    state: Path | None = None
    engine: str = DEFAULT_ENGINE
    python: Path | None = None
    first_port: int = 0
    ports: dict[str, int] = field(default_factory=dict)
    timeout: float = DEFAULT_TIMEOUT
    kv_cache: int | None = None


@dataclass(frozen=True)
class ServiceReport:
    """What is known of one service that is up.

    Attributes:
        service: as declared.
        url: base URL of its endpoint.
        precision: how its checkpoint stores weights: `bf16`, `w4a16`.
        size: bytes of its delivered files.
        digest: of what was delivered.
        plan: memory plan; None on GPUs, where the engine measures.
        reported_kv_tokens: KV cache as the engine reported it; None when it did not.
        arguments: what the engine was started with.
        stages: in order.
        checks: of verification.
        interview: answers and times; None when verification failed.
        log: the engine's whole output.
    """

    service: Service
    url: str
    precision: str
    size: int
    digest: str
    plan: LocalPlan | None
    reported_kv_tokens: int | None
    arguments: LocalArguments
    stages: tuple[StageReport, ...]
    checks: tuple[Check, ...]
    interview: Interview | None
    log: Path

    @property
    def exit_code(self) -> int:
        """0 when every check passed, else that of the first that did not."""
        return next((check.exit_code for check in self.checks if not check.passed), 0)


@dataclass(frozen=True)
class UpReport:
    """What `berth up` found.

    Attributes:
        stack: name of the stack.
        services: in file order.
        recovery: share of answers that quantised variants give exactly as the unquantised one; None without both.
        run: folder of this run's logs.
        seconds: from start to report.
    """

    stack: str
    services: tuple[ServiceReport, ...]
    recovery: float | None
    run: Path
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 when every service passed every check, else that of the first that did not."""
        return next((service.exit_code for service in self.services if service.exit_code), 0)


@dataclass(frozen=True)
class UpRun:
    """A stack that is up: its report, and its engines to keep in view."""

    report: UpReport
    engines: Engines

    def watch(self, seconds: float) -> None:
        """Follow the engines for a while.

        Raises:
            NotReady: one ended.
        """
        self.engines.watch(seconds)


@dataclass
class _Berthed:
    """One service on its way up."""

    service: Service
    source: Source
    clock: StageClock
    plan: LocalPlan | None = None
    delivered: Delivered | None = None


@contextmanager
def bring_up(request: UpRequest, listener: Listener) -> Iterator[UpRun]:
    """Bring a stack up on this machine; everything stops when the block ends.

    Raises:
        BerthError: with the exit code of what failed; nothing is left running.
    """
    watch = Stopwatch()
    spec = _spec_file(request.spec)
    stack = _read(spec)
    known = known_engine(request.engine)
    state = open_state(request.state)
    runtime = choose_runtime(state, request.engine, request.python)
    folder = state.stack(stack.metadata.name, spec)
    berthed = [
        _Berthed(service, service_source(service, spec.parent), StageClock(service.name, listener))
        for service in services(stack)
    ]
    ports = _ports(request, berthed)
    try:
        _size(berthed, runtime, known, request.kv_cache, listener)
        with disk_errors(folder.root):
            run = new_run(folder, utc_now().strftime("%Y%m%dT%H%M%SZ"))
        _deliver(berthed, state, folder, run, listener)
        with _held(berthed), Engines(listener) as engines:
            arguments = _start(berthed, engines, ports, runtime, known, state, run, listener)
            engines.wait_ready(request.timeout)
            report = _report(stack, berthed, engines, arguments, run, watch)
            yield UpRun(report, engines)
    finally:
        for port in ports:
            port.release()


def _spec_file(path: Path) -> Path:
    """A folder stands for the berth.yaml in it."""
    return path / "berth.yaml" if path.is_dir() else path


def _read(path: Path) -> Stack:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError("there is no such file", where=str(path), next_step="give the path of a berth.yaml") from None
    except OSError as error:
        raise UsageError("the file cannot be read", where=str(path), why=error.strerror or "") from error
    return read_stack(content, str(path))


def _ports(request: UpRequest, berthed: list[_Berthed]) -> list[machine.Port]:
    names = [item.service.name for item in berthed]
    for name in request.ports:
        if name not in names:
            raise UsageError(f"no service is named '{name}'", where="--port", why=did_you_mean(name, names))
    reserved: list[machine.Port] = []
    try:
        for index, name in enumerate(names):
            counted = request.first_port + index if request.first_port else 0
            reserved.append(machine.reserve_port(request.ports.get(name, counted)))
    except BaseException:
        for port in reserved:
            port.release()
        raise
    return reserved


def _size(
    berthed: list[_Berthed], runtime: Runtime, engine: LocalEngine, kv_cache: int | None, listener: Listener
) -> None:
    """Plan each variant's memory on this machine; on GPUs the engine measures for itself."""
    memory = machine.available_memory()
    left = None if memory is None else int(memory * _MEMORY_SHARE)
    for item in berthed:
        checkpoint, variant = item.source.checkpoint, item.service.variant
        _check_declared(item.service, checkpoint.shape.precision, listener)
        with item.clock.stage("size") as stage:
            if runtime.gpus or left is None:
                stage.outcome = f"{checkpoint.shape.precision}, weights {format_binary(checkpoint.weight_bytes)}"
                continue
            item.plan = plan_local(
                checkpoint, available=left, process=engine.resident_bytes, block_tokens=engine.kv_block_tokens,
                max_model_len=variant.max_model_len, kv_cache_dtype=variant.kv_cache_dtype, wanted_cache=kv_cache,
            )  # fmt: skip
            left -= item.plan.total
            stage.outcome = (
                f"fits: weights {format_binary(item.plan.weights)}, KV cache {format_binary(item.plan.kv_cache)} "
                f"for {item.plan.kv.tokens:,} tokens"
            )


def _check_declared(service: Service, found: str, listener: Listener) -> None:
    """Say when a checkpoint is not quantised as its variant declares; what counts is the checkpoint."""
    declared = service.variant.quantization
    unquantised = {"bf16", "fp16", "fp32"}
    if declared != found and not (declared is None and found in unquantised):
        listener(Note(service.name, f"declared quantization: {declared or 'none'}; the checkpoint says {found}"))


def _deliver(berthed: list[_Berthed], state: State, folder: StackFolder, run: Path, listener: Listener) -> None:
    with disk_errors(folder.root):
        require_delivery_room(folder, [(item.service, item.source) for item in berthed])
        with Delivery(state, folder, run, listener).open() as delivery:
            for item in berthed:
                item.delivered = delivery.deliver(item.service, item.source, item.clock)


@contextmanager
def _held(berthed: list[_Berthed]) -> Iterator[None]:
    """Hold every serving folder, shared, so that no other run takes it for abandoned."""
    if not berthed:
        yield
        return
    first, *others = berthed
    folder = _delivered(first).folder
    with locked(folder.with_name(folder.name + ".lock"), shared=True), _held(others):
        yield


def _delivered(item: _Berthed) -> Delivered:
    if item.delivered is None:
        raise AssertionError("delivered before it is served")
    return item.delivered


def _start(
    berthed: list[_Berthed], engines: Engines, ports: list[machine.Port], runtime: Runtime, known: LocalEngine,
    state: State, run: Path, listener: Listener,
) -> list[LocalArguments]:  # fmt: skip
    shares = share_cores(machine.processors(), len(berthed))
    started = []
    for item, port, cores in zip(berthed, ports, shares, strict=True):
        seat = LocalSeat(
            model=str(_delivered(item).folder), host=machine.LOOPBACK, port=port.number, gpus=runtime.gpus,
            kv_cache_bytes=item.plan.kv_cache if item.plan else 0,
        )  # fmt: skip
        arguments = local_arguments(engine_arguments(item.service), seat)
        for text in arguments.replacements:
            listener(Note(item.service.name, text))
        command = serve(runtime, known, arguments)
        name = item.service.name
        engines.start(name, command, engine_environment(state, cores), port, run / f"{name}.log", item.clock)
        started.append(arguments)
    return started


def _report(
    stack: Stack,
    berthed: list[_Berthed],
    engines: Engines,
    arguments: list[LocalArguments],
    run: Path,
    watch: Stopwatch,
) -> UpReport:
    prompts = stack.verification.prompts or DEFAULT_PROMPTS
    reports = []
    for item, engine, started in zip(berthed, engines.all, arguments, strict=True):
        with item.clock.stage("verify") as stage:
            checks = verify(engine.endpoint, item.service.served_name, prompts[0])
            stage.outcome = f"{sum(check.passed for check in checks)} of {len(checks)} checks passed"
        interview = None
        if all(check.passed for check in checks):
            with item.clock.stage("ask", f"{len(prompts)} prompts"):
                interview = ask(engine.endpoint, item.service.served_name, prompts, stack.verification.max_tokens)
        reports.append(_service_report(item, engine, started, checks, interview))
    return UpReport(stack.metadata.name, tuple(reports), _recovery(reports), run, watch.seconds())


def _service_report(
    item: _Berthed,
    engine: Engine,
    arguments: LocalArguments,
    checks: tuple[Check, ...],
    interview: Interview | None,
) -> ServiceReport:
    delivered = _delivered(item)
    return ServiceReport(
        service=item.service,
        url=engine.url,
        precision=item.source.checkpoint.shape.precision,
        size=delivered.size,
        digest=delivered.digest,
        plan=item.plan,
        reported_kv_tokens=engine.start_up.kv_cache_tokens,
        arguments=arguments,
        stages=tuple(item.clock.reports),
        checks=checks,
        interview=interview,
        log=engine.log,
    )


def _recovery(reports: list[ServiceReport]) -> float | None:
    """Quantised variants against the unquantised variant of the same model."""
    pairs = []
    for reference in reports:
        if reference.precision not in {"bf16", "fp16", "fp32"} or reference.interview is None:
            continue
        for other in reports:
            same = other.service.model.name == reference.service.model.name and other.precision != reference.precision
            if same and other.interview is not None:
                pairs.append((reference.interview, other.interview))
    return recovery(pairs)
