"""`berth runtime`: local engines, installed apart from everything else, or the user's own."""

from __future__ import annotations

from pathlib import Path

from modelberth.adapters import vllm_engine
from modelberth.adapters.vllm_engine import Runtime
from modelberth.base.errors import UsageError
from modelberth.base.text import did_you_mean
from modelberth.catalog import engines
from modelberth.catalog.engines import LocalEngine
from modelberth.flows.progress import Listener, Note
from modelberth.flows.state import State

DEFAULT_ENGINE = "vllm-cpu"


def list_runtimes(state: State) -> tuple[Runtime, ...]:
    """The complete environments of this state folder."""
    return vllm_engine.installed(state.runtimes)


def install_runtime(state: State, name: str, listener: Listener) -> Runtime:
    """Install an engine, or find it complete.

    Raises:
        UsageError: no engine of that name.
        PrerequisiteMissing, RemoteUnavailable, DoesNotFit: as `vllm_engine.install`.
    """
    return vllm_engine.install(state.runtimes, known_engine(name), lambda step: listener(Note(name, step)))


def known_engine(name: str) -> LocalEngine:
    """The facts of an engine by name.

    Raises:
        UsageError: no engine of that name.
    """
    if name not in engines.names():
        raise UsageError(f"no runtime is named '{name}'", why=did_you_mean(name, engines.names()))
    return engines.engine(name)


def choose_runtime(state: State, name: str, python: Path | None) -> Runtime:
    """The environment to serve with: the user's own where given, else the installed one.

    Raises:
        PrerequisiteMissing: it is not there; the error names the command that installs it.
    """
    engine = known_engine(name)
    if python is not None:
        return vllm_engine.probe(python)
    folder = vllm_engine.runtime_folder(state.runtimes, engine)
    for runtime in list_runtimes(state):
        if runtime.folder == folder:
            return runtime
    raise vllm_engine.not_installed(name)
