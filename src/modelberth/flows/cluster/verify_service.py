"""`berth verify SERVICE`: a service on the cluster asked through a tunnel to one of its pods.

A service that is not ready is not asked: a pod of an older generation would answer, and say nothing of the new one.
The tunnel ends at the engine itself, in front of which OpenShift AI may put a proxy that wants a token (port 8443).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from modelberth.adapters.kubernetes_api import Cluster, Ref, forward
from modelberth.adapters.kubernetes_api.kinds import PODS
from modelberth.base.errors import NotReady
from modelberth.flows.cluster.watch import current
from modelberth.flows.verify_endpoint import VerifyReport, VerifyRequest, verify_endpoint
from modelberth.spec.services import Service
from modelberth.timeline.engine_port import engine_port
from modelberth.timeline.service_state import ServiceState

_PORT = 8080
_TOOL_FLAGS = ("enable-auto-tool-choice", "tool-call-parser")


def verify_service(cluster: Cluster, namespace: str, name: str, request: VerifyRequest) -> VerifyReport:
    """Verify a service with real requests to one of its pods.

    Args:
        cluster: that it is on.
        namespace: its.
        name: its name.
        request: what to ask; its URL is not used.

    Raises:
        NotReady: it is not there, or not ready.
        AuthError, RemoteUnavailable: the cluster cannot be asked, or refuses a port-forward.
    """
    with reached(cluster, namespace, name) as way:
        report = verify_endpoint(replace(request, url=way.url, unverified=way.unverified))
    return replace(report, url=f"{name} ({way.target})")


@dataclass(frozen=True)
class Way:
    """How a service is reached from here.

    Attributes:
        url: on this machine.
        unverified: its certificate is the pod's own: the tunnel is what leads to the right one.
        target: in words: `pod mistral-0, port 8080`.
    """

    url: str
    unverified: bool
    target: str


@contextmanager
def reached(cluster: Cluster, namespace: str, name: str) -> Iterator[Way]:
    """A tunnel to a ready pod of a service, while the block runs.

    Raises:
        NotReady: it is not there, or not ready.
        AuthError, RemoteUnavailable: the cluster cannot be asked, or refuses a port-forward.
    """
    states, _ = current(cluster, namespace, [name])
    ready = [each for each in states if each.state == "ready"]  # two kinds of service may have one name
    pod = _ready_pod([*ready, *states][0])
    port, secure = engine_port(cluster.get(Ref(PODS, pod, namespace)) or {})
    with forward(cluster, namespace, pod, port) as tunnel:
        url = f"{'https' if secure else 'http'}://127.0.0.1:{tunnel.port}"
        yield Way(url, secure, f"pod {pod}, port {port}")


def declared(service: Service, request: VerifyRequest, prompts: tuple[str, ...]) -> VerifyRequest:
    """A request with what a stack declares of a service: its name, its context, its tools, its prompts.

    What the request says already stays.
    """
    variant = service.variant
    tools = any(flag in variant.engine_args for flag in _TOOL_FLAGS)
    return replace(
        request, model=request.model or service.served_name,
        max_model_len=request.max_model_len or variant.max_model_len, tools=request.tools or tools,
        prompts=prompts or request.prompts,
    )  # fmt: skip


def _ready_pod(state: ServiceState) -> str:
    if state.state != "ready":
        raise NotReady(
            f"service {state.name} is not ready: {state.state}", where=f"namespace {state.namespace}",
            why=state.why or f"it is in stage {state.stage}",
            next_step=f"berth watch {state.name} -n {state.namespace}",
        )  # fmt: skip
    return next(pod.name for pod in state.pods if pod.ready)
