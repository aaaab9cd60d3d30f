"""Where the engine of a pod listens, and whether it speaks TLS: as its own probes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelberth.timeline.pod_times import ENGINE_CONTAINERS

DEFAULT_PORT = 8080
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")


def engine_port(pod: Mapping[str, Any]) -> tuple[int, bool]:
    """The port, and whether https is spoken there (an LLMInferenceService does, on 8000).

    A pod without a declared port is asked on 8080, where KServe's own runtimes listen.
    """
    for container in (pod.get("spec") or {}).get("containers") or []:
        if container.get("name") in ENGINE_CONTAINERS:
            ports = [each.get("containerPort") for each in container.get("ports") or []]
            probes = (container.get(name) or {} for name in _PROBES)
            secure = any((probe.get("httpGet") or {}).get("scheme") == "HTTPS" for probe in probes)
            return int(ports[0]) if ports and ports[0] else DEFAULT_PORT, secure
    return DEFAULT_PORT, False
