"""Byte counts that never mix GB (10^9) with GiB (2^30), and durations for people.

The field's commonest wrong number is a GB that should be a GiB: vLLM prints GiB (older versions print
"GB" and mean GiB), clouds and disks sell GB. So a count is always plain bytes (`int`), and a unit appears
only in text, always spelled out.
"""

from __future__ import annotations

import re
from decimal import Decimal

from modelberth.base.errors import UsageError

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12

_LONG = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB, "kB": KB, "KB": KB, "MB": MB, "GB": GB, "TB": TB}
# Kubernetes quantities: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
# A lone `m` is milli there, so single letters count only as they are written here.
_KUBERNETES = {"Ki": KIB, "Mi": MIB, "Gi": GIB, "Ti": TIB, "k": KB, "M": MB, "G": GB, "T": TB}
_SCALES = {"": 1, "B": 1, **_LONG, **{unit.lower(): scale for unit, scale in _LONG.items()}, **_KUBERNETES}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(text: str) -> int:
    """Read a size such as `13.5GB`, `24GiB`, `100Gi` or `4096` into bytes, rounded down.

    Raises:
        UsageError: not a number with a known unit.
    """
    match = _SIZE.fullmatch(text)
    scale = _SCALES.get(match[2]) if match else None
    if match is None or scale is None:
        raise UsageError(f"'{text}' is not a size", why="expected a number with a unit, such as 24GiB or 13.5GB")
    return int(Decimal(match[1]) * scale)


def format_binary(count: int) -> str:
    """Bytes in binary units, for memory: `22.05 GiB`."""
    return _format(count, ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")))


def format_decimal(count: int) -> str:
    """Bytes in decimal units, for files, disks and transfers: `47.14 GB`."""
    return _format(count, ((TB, "TB"), (GB, "GB"), (MB, "MB"), (KB, "kB")))


def _format(count: int, scales: tuple[tuple[int, str], ...]) -> str:
    # What would be shown as 1000.00 or 1024.00 of one unit is shown as 1.00 of the next.
    for scale, unit in scales:
        if round(abs(count) / scale, 2) >= 1 and abs(count) >= scales[-1][0]:
            return f"{count / scale:.2f} {unit}"
    return f"{count} B"


def format_seconds(seconds: float) -> str:
    """A duration for people: `0.4 s`, `54 s`, `2 min 03 s`, `1 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
