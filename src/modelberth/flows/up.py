"""`berth up`: the whole story of a stack on this machine, with real vLLM.

    read the spec -> size each variant -> ship -> fetch back, verified -> start the engines -> wait
    -> verify with real requests -> ask every variant the same -> report, and keep serving

`bring_up` is a context manager: while its block runs the endpoints answer; after it, nothing runs any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelberth.adapters import machine
from modelberth.adapters.files import disk_errors
from modelberth.adapters.vllm_engine import Runtime
from modelberth.base.clock import Stopwatch, utc_now
from modelberth.base.errors import UsageError
from modelberth.base.text import did_you_mean
from modelberth.base.units import format_binary
from modelberth.catalog.engines import LocalEngine
from modelberth.flows.ask import DEFAULT_PROMPTS, ask
from modelberth.flows.local_delivery import Delivered, Delivery, require_delivery_room, service_source
from modelberth.flows.local_serving import Engine, Engines, engine_environment, serve, share_cores
from modelberth.flows.progress import Listener, Note
from modelberth.flows.runtime import DEFAULT_ENGINE, choose_runtime, known_engine
from modelberth.flows.source import Source
from modelberth.flows.spec_file import read_spec_file
from modelberth.flows.stage_clock import StageClock
from modelberth.flows.state import StackFolder, State, new_run, open_state
from modelberth.flows.up_report import UNQUANTISED, ServiceReport, UpReport
from modelberth.flows.verify import verify
from modelberth.manifests.engine_args import (
    LocalArguments,
    LocalSeat,
    engine_arguments,
    left_to_the_cluster,
    local_arguments,
)
from modelberth.sizing.local import LocalPlan, plan_local
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Verification

DEFAULT_TIMEOUT = 900.0
_LAST_PORT = 65535
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


@dataclass(frozen=True)
class _Guest:
    """A service on its way up: its checked source, and the clock of its stages."""

    service: Service
    source: Source
    clock: StageClock


@dataclass(frozen=True)
class _Host:
    """What all services of a run share."""

    state: State
    folder: StackFolder
    run: Path
    runtime: Runtime
    engine: LocalEngine
    listener: Listener


@contextmanager
def bring_up(request: UpRequest, listener: Listener) -> Iterator[UpRun]:
    """Bring a stack up on this machine; everything stops when the block ends.

    Raises:
        BerthError: with the exit code of what failed; nothing is left running.
    """
    watch = Stopwatch()
    spec = read_spec_file(request.spec)
    name, verification = spec.stack.metadata.name, spec.stack.verification
    engine = known_engine(request.engine)
    state = open_state(request.state)
    runtime = choose_runtime(state, request.engine, request.python)
    guests = [
        _Guest(service, service_source(service, spec.folder), StageClock(service.name, listener))
        for service in services(spec.stack)
    ]
    with ExitStack() as held:
        ports = _ports(request, [guest.service.name for guest in guests], held)
        plans = _size(guests, runtime, engine, request.kv_cache, listener)
        folder = state.stack(name, spec.path)
        with disk_errors(folder.root):
            run = new_run(folder, utc_now().strftime("%Y%m%dT%H%M%SZ"))
        host = _Host(state, folder, run, runtime, engine, listener)
        delivered = _deliver(guests, host, held)
        engines = held.enter_context(Engines(listener))
        arguments = _start(guests, host, delivered, plans, ports, engines)
        engines.wait_ready(request.timeout)
        reports = [
            _report(guest, plan, arrived, started, running, verification)
            for guest, plan, arrived, started, running in zip(
                guests, plans, delivered, arguments, engines.all, strict=True
            )
        ]
        yield UpRun(UpReport(name, tuple(reports), run, watch.seconds()), engines)


def _ports(request: UpRequest, names: Sequence[str], held: ExitStack) -> list[machine.Port]:
    for name in request.ports:
        if name not in names:
            raise UsageError(f"no service is named '{name}'", where="--port", why=did_you_mean(name, names))
    counted = [request.first_port + index if request.first_port else 0 for index in range(len(names))]
    numbers = [request.ports.get(name, number) for name, number in zip(names, counted, strict=True)]
    for number in filter(None, numbers):
        if number > _LAST_PORT:
            raise UsageError(f"there is no port {number}", where="--port", why="services count up from the first port")
        if numbers.count(number) > 1:
            raise UsageError(f"two services would have port {number}", where="--port")
    reserved = []
    for number in numbers:
        port = machine.reserve_port(number)
        held.callback(port.release)
        reserved.append(port)
    return reserved


def _size(
    guests: Sequence[_Guest], runtime: Runtime, engine: LocalEngine, kv_cache: int | None, listener: Listener
) -> list[LocalPlan | None]:
    """Plan each variant's memory on this machine; None on GPUs, where the engine measures for itself."""
    memory = machine.available_memory()
    left = None if memory is None or runtime.gpus else int(memory * _MEMORY_SHARE)
    plans: list[LocalPlan | None] = []
    for guest in guests:
        checkpoint, variant = guest.source.checkpoint, guest.service.variant
        _check_declared(guest.service, checkpoint.shape.precision, listener)
        with guest.clock.stage("size") as stage:
            if left is None:
                plans.append(None)
                stage.outcome = f"{checkpoint.shape.precision}, weights {format_binary(checkpoint.weight_bytes)}"
                continue
            plan = plan_local(
                checkpoint,
                available=left,
                process=engine.resident_bytes,
                block_tokens=engine.kv_block_tokens,
                max_model_len=variant.max_model_len,
                kv_cache_dtype=variant.kv_cache_dtype,
                wanted_cache=kv_cache,
            )
            left -= plan.total
            plans.append(plan)
            stage.outcome = (
                f"fits: weights {format_binary(plan.weights)}, "
                f"KV cache {format_binary(plan.kv_cache)} for {plan.kv.tokens:,} tokens"
            )
    return plans


def _check_declared(service: Service, found: str, listener: Listener) -> None:
    """Say when a checkpoint is not quantised as its variant declares; what counts is the checkpoint."""
    declared = service.variant.quantization
    if declared != found and not (declared is None and found in UNQUANTISED):
        listener(Note(service.name, f"declared quantization: {declared or 'none'}; the checkpoint says {found}"))


def _deliver(guests: Sequence[_Guest], host: _Host, held: ExitStack) -> list[Delivered]:
    """Ship and fetch all services; each serving folder is held from then on."""
    with disk_errors(host.folder.root):
        require_delivery_room(host.folder, [(guest.service, guest.source) for guest in guests])
        with Delivery(host.state, host.folder, host.run, host.listener).open() as delivery:
            return [delivery.deliver(guest.service, guest.source, guest.clock, held) for guest in guests]


def _start(
    guests: Sequence[_Guest],
    host: _Host,
    delivered: Sequence[Delivered],
    plans: Sequence[LocalPlan | None],
    ports: Sequence[machine.Port],
    engines: Engines,
) -> list[LocalArguments]:
    shares = share_cores(machine.processors(), len(guests))
    started = []
    for guest, arrived, plan, port, cores in zip(guests, delivered, plans, ports, shares, strict=True):
        seat = LocalSeat(
            model=str(arrived.folder),
            host=machine.LOOPBACK,
            port=port.number,
            gpus=host.runtime.gpus,
            kv_cache_bytes=plan.kv_cache if plan else None,
        )
        arguments = local_arguments(engine_arguments(guest.service), seat)
        left_out = left_to_the_cluster(guest.service)
        arguments = replace(arguments, replacements=(*arguments.replacements, *left_out))
        name = guest.service.name
        for text in arguments.replacements:
            host.listener(Note(name, text))
        command = serve(host.runtime, host.engine, arguments)
        environment = engine_environment(host.state, cores)
        engines.start(name, command, environment, port, host.run / f"{name}.log", guest.clock)
        started.append(arguments)
    return started


def _report(
    guest: _Guest,
    plan: LocalPlan | None,
    delivered: Delivered,
    arguments: LocalArguments,
    engine: Engine,
    verification: Verification,
) -> ServiceReport:
    """Verify one service, and ask it the prompts when it passes."""
    prompts = verification.prompts or DEFAULT_PROMPTS
    served_name = guest.service.served_name
    with guest.clock.stage("verify") as stage:
        checks = verify(engine.endpoint, served_name, prompts[0])
        stage.outcome = f"{sum(check.passed for check in checks)} of {len(checks)} checks passed"
    interview = None
    if all(check.passed for check in checks):
        with guest.clock.stage("ask", f"{len(prompts)} prompts"):
            interview = ask(engine.endpoint, served_name, prompts, verification.max_tokens)
    return ServiceReport(
        service=guest.service,
        url=engine.url,
        precision=guest.source.checkpoint.shape.precision,
        size=delivered.size,
        digest=delivered.digest,
        plan=plan,
        reported_kv_tokens=engine.start_up.kv_cache_tokens,
        arguments=arguments,
        stages=tuple(guest.clock.reports),
        checks=checks,
        interview=interview,
        log=engine.log,
    )
