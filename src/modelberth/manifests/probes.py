"""Probes: a start may take as long as loading is predicted to take; after it, what stands still is restarted.

vLLM answers `/health` only once the model is loaded. A liveness probe without a startup probe before it kills a pod
that still loads.
"""

from __future__ import annotations

import math
from typing import Any

_PERIOD = 10
# Beside a long prefill the API server of vLLM can be late with an answer: a minute of silence, not a second.
_LIVENESS = {"periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 3}
_READINESS = {"periodSeconds": _PERIOD, "timeoutSeconds": 5, "failureThreshold": 3}


def health(port: int) -> dict[str, Any]:
    """The question that all probes ask."""
    return {"httpGet": {"path": "/health", "port": port}}


def startup_times(seconds: int) -> dict[str, int]:
    """How often a startup probe asks, so that a start may take so many seconds."""
    return {"periodSeconds": _PERIOD, "timeoutSeconds": 5, "failureThreshold": math.ceil(seconds / _PERIOD)}


def liveness(port: int) -> dict[str, Any]:
    """Whether the engine still answers."""
    return {**health(port), **_LIVENESS}


def readiness(port: int) -> dict[str, Any]:
    """Whether requests may be sent."""
    return {**health(port), **_READINESS}
