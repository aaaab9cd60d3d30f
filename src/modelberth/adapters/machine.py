"""This machine: free memory, processors, free ports."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from modelberth.base.errors import AuthError, Conflict
from modelberth.base.units import KIB

LOOPBACK = "127.0.0.1"


def available_memory() -> int | None:
    """Bytes that can be taken without swapping: the system's figure or the container's limit, whichever is less.

    None where the system does not say (no /proc).
    """
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return None
    free = int(fields["MemAvailable"].split()[0]) * KIB
    limit = _cgroup_room()
    return free if limit is None else min(free, limit)


def _cgroup_room() -> int | None:
    """Bytes left below the control group's memory limit (cgroup v2); None without a limit."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def processors() -> tuple[int, ...]:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@dataclass
class Port:
    """A reserved port on the loopback address.

    The socket is bound and does not listen: the system gives the number to nobody who asks for any free port,
    and the engine can still bind it by number, because it sets SO_REUSEADDR as vLLM does. Two processes that
    ask for one number by name at the same moment are told apart by the engine's own bind.
    """

    number: int
    _socket: socket.socket

    def release(self) -> None:
        """Give the number back."""
        self._socket.close()


def reserve_port(wanted: int = 0) -> Port:
    """Reserve a port.

    Args:
        wanted: the number; 0 for any that is free.

    Raises:
        Conflict: somebody has it.
        AuthError: a number that needs privileges.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, wanted))
    except OSError as error:
        holder.close()
        raise _translated(error, wanted) from error
    return Port(holder.getsockname()[1], holder)


def _translated(error: OSError, number: int) -> Exception:
    where = f"{LOOPBACK}:{number}"
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"port {number} is taken",
            where=where,
            next_step=f"see who has it: ss -ltnp 'sport = :{number}'; or leave --port out",
        )
    if error.errno == errno.EACCES:
        return AuthError(f"port {number} needs privileges", where=where, next_step="choose a port from 1024 up")
    return error


def reach(host: str, port: int, seconds: float = 5.0) -> str:
    """Why a host cannot be reached on a port; empty where it can."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return ""
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of a folder, or of the nearest one above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
