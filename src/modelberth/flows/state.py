"""The state folder: where everything that `berth` keeps on this machine lies.

<state>/runtimes/<engine>-<version>/     engines that `berth runtime install` made
<state>/cache/                           compiled kernels and hashes, safe to delete
<state>/journals/                        uploads under way: what stores have confirmed
<state>/workspace/                       parts on their way from one remote to another
<state>/stacks/<name>-<id>/              one folder for each berth.yaml
    delivery.lock                        held while weights are shipped and fetched
    s3/<bucket>/...                      the embedded S3 server's objects, plain files
    oci/                                 an OCI image layout with the stack's model images
    serve/<service>/<digest>/            verified weights, named by their manifest; never changed in place
    runs/<id>/                           logs and report of one run
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelberth.adapters.files import remove_tree
from modelberth.base.errors import BerthError, UsageError

KEPT_RUNS = 10
"""Runs whose logs are kept for each stack."""


def default_state() -> Path:
    """`$XDG_DATA_HOME/modelberth`, or `~/.local/share/modelberth`."""
    home = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    root = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share"
    return root / "modelberth"


@dataclass(frozen=True)
class StackFolder:
    """The folders of one stack."""

    root: Path

    @property
    def lock(self) -> Path:
        """Lock of the delivery."""
        return self.root / "delivery.lock"

    @property
    def s3(self) -> Path:
        """Folder of the embedded S3 server."""
        return self.root / "s3"

    @property
    def oci(self) -> Path:
        """Folder of the image layout."""
        return self.root / "oci"

    def serving(self, service: str, digest: str) -> Path:
        """Folder of one service's verified weights."""
        return self.root / "serve" / service / digest[:16]


@dataclass(frozen=True)
class State:
    """The whole state folder."""

    root: Path

    @property
    def runtimes(self) -> Path:
        """Folder of the installed engines."""
        return self.root / "runtimes"

    @property
    def cache(self) -> Path:
        """Folder of what can be made again."""
        return self.root / "cache"

    @property
    def journals(self) -> Path:
        """Folder of the journals of uploads under way."""
        return self.root / "journals"

    @property
    def workspace(self) -> Path:
        """Folder of parts on their way from one remote to another."""
        return self.root / "workspace"

    @property
    def hashes(self) -> Path:
        """File of known hashes."""
        return self.cache / "hashes.json"

    def stack(self, name: str, spec: Path) -> StackFolder:
        """The folder of a stack, told apart by its file's place."""
        identity = hashlib.sha256(str(spec.resolve()).encode()).hexdigest()[:8]
        return StackFolder(self.root / "stacks" / f"{name}-{identity}")


def open_state(root: Path | None) -> State:
    """The state folder, made where there is none.

    Raises:
        UsageError: it cannot be made, or cannot be written.
    """
    state = State((root or default_state()).expanduser().absolute())
    try:
        state.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "the state folder cannot be made",
            where=str(state.root),
            why=os.strerror(error.errno or 0),
            next_step="--state DIR",
        ) from error
    return state


def new_run(stack: StackFolder, stamp: str) -> Path:
    """A new folder for the logs of a run; the oldest beyond `KEPT_RUNS` are removed.

    Args:
        stack: whose run it is.
        stamp: date and time, `20261123T140501Z`; sorts by age.
    """
    runs = stack.root / "runs"
    run = runs / f"{stamp}-{os.getpid()}"
    run.mkdir(parents=True, exist_ok=True)
    old = sorted(folder for folder in runs.iterdir() if re.fullmatch(r"\d{8}T\d{6}Z-\d+", folder.name))
    for folder in old[:-KEPT_RUNS]:
        if not _is_alive(int(folder.name.rpartition("-")[2])):
            with suppress(BerthError):  # another run may be removing it as well
                remove_tree(folder)
    return run


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
