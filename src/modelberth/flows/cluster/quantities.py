"""Quantities as Kubernetes writes them: 100m, 16Gi, 4."""

from __future__ import annotations

_SUFFIXES = {
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
}  # fmt: skip


def quantity(value: object) -> float:
    """A quantity in its unit (bytes, processors, pieces); 0.0 of what is none.

    Source: k8s.io/apimachinery, pkg/api/resource/quantity.go.
    """
    text = str(value if value is not None else "").strip()
    suffix = next((each for each in _SUFFIXES if text.endswith(each)), "")
    try:
        return float(text.removesuffix(suffix)) * _SUFFIXES.get(suffix, 1.0)
    except ValueError:
        return 0.0
