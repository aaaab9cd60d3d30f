"""The double's HTTP side: discovery, verbs, watches, logs, reviews, port-forwards, and faults on demand."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kube_server.answers import Answers, Refused, status
from kube_server.resources import RESOURCES, Resource
from kube_server.store import Document, Key, Store
from kube_server.websocket import carry, handshake

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?P<sub>/.+)?)?"
)
TOKEN = "token-of-the-double"


@dataclass
class Fault:
    """What happens to matching requests instead of an answer.

    Attributes:
        path: regular expression; searched in the path.
        method: of HTTP; empty for all.
        status: to answer with; 0 for something else.
        times: how often; it is over then.
        retry_after: seconds in the header.
        hang: answer nothing until the server closes.
        cut: break the connection after so many bytes of a stream.
        body: of the answer, instead of a Status.
    """

    path: str
    method: str = ""
    status: int = 0
    times: int = 1
    retry_after: int | None = None
    hang: bool = False
    cut: int | None = None
    body: bytes | None = None


@dataclass
class _Log:
    """What a container has said, and when: each piece that was written, by its offset, in seconds since 1970."""

    content: bytearray = field(default_factory=bytearray)
    times: list[tuple[int, float]] = field(default_factory=list)
    ended: bool = False

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Every line with its time."""
        offset, entries = 0, iter([*self.times, (len(self.content) + 1, 0.0)])
        when, following = 0.0, next(entries)
        for line in bytes(self.content).splitlines(keepends=True):
            while following[0] <= offset:
                when, following = following[1], next(entries)
            yield when, line
            offset += len(line)


class KubeServer:
    """One API server double; see the package.

    Args:
        absent: kinds that it does not serve, as when an operator is not installed.
        crds: folders of definitions that custom objects must pass; none for no validation.
    """

    def __init__(self, absent: Iterable[str] = (), crds: Iterable[Path] = ()) -> None:
        self.store = Store()
        self.resources = [each for each in RESOURCES if each.kind not in set(absent)]
        self.crds = list(crds)
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.tokens = {TOKEN: "tester"}
        self.denied: list[tuple[str, str, str, str]] = []
        self.logs: dict[tuple[str, str, str, bool], _Log] = {}
        self.pod_ports: dict[tuple[str, str, int], int] = {}
        self.lock = Lock()
        self.closing = Event()
        self._port = 0
        self._http: ThreadingHTTPServer | None = None
        for name in ("default", "kube-system"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    # --- life -------------------------------------------------------------------------------------------------

    def __enter__(self) -> KubeServer:
        self.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; on the same port as before when it is started again."""
        self.closing.clear()
        self._http = _Http(("127.0.0.1", self._port), self)
        self._port = self._http.server_port
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening and break every connection; objects stay."""
        self.closing.set()
        with self.store.changed:
            self.store.changed.notify_all()
        if self._http:
            self._http.shutdown()
            self._http.break_connections()
            self._http.server_close()
            self._http = None

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(
        self, folder: Path, namespace: str = "default", token: str = TOKEN, front: tuple[int, Path] | None = None
    ) -> Path:
        """A kubeconfig with one context, `double`; `front` is a port that speaks TLS, and who signs its certificate."""
        cluster = {"server": self.url}
        if front:
            cluster = {"server": f"https://127.0.0.1:{front[0]}", "certificate-authority": str(front[1])}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "clusters": [{"name": "double", "cluster": cluster}],
            "users": [{"name": "tester", "user": {"token": token}}],
            "contexts": [
                {"name": "double", "context": {"cluster": "double", "user": "tester", "namespace": namespace}},
            ],
        }  # fmt: skip
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path

    # --- as a controller would --------------------------------------------------------------------------------

    def resource(self, document: Document) -> Resource:
        """The resource of an object."""
        group, _, version = document["apiVersion"].rpartition("/")
        return next(
            each for each in self.resources
            if (each.group, each.kind) == (group, document["kind"]) and version in each.versions
        )  # fmt: skip

    def key(self, document: Document) -> Key:
        """Where an object is stored."""
        resource = self.resource(document)
        about = document["metadata"]
        return (resource.name, about.get("namespace", "default") if resource.namespaced else "", about["name"])

    def put(self, document: Document) -> Document:
        """Create or replace an object, as somebody in the cluster."""
        return self.store.put(self.key(document), json.loads(json.dumps(document)))

    def get(self, kind: str, name: str, namespace: str = "") -> Document | None:
        """An object by kind and name."""
        resource = next(each for each in self.resources if each.kind == kind)
        return self.store.get((resource.name, namespace, name))

    def change(self, kind: str, name: str, namespace: str = "", **parts: Any) -> Document:
        """Replace top-level parts of an object: `status={...}`; a status alone makes no new generation."""
        resource = next(each for each in self.resources if each.kind == kind)
        key = (resource.name, namespace, name)
        found = self.store.get(key)
        assert found is not None, f"no {kind} {namespace}/{name}"
        return self.store.put(key, found | parts, status_only=set(parts) == {"status"})

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object and what it owns."""
        resource = next(each for each in self.resources if each.kind == kind)
        self.store.remove((resource.name, namespace, name))

    def finish_deletion(self, kind: str, name: str, namespace: str = "") -> None:
        """Take the finalizers of an object that is being deleted."""
        found = self.get(kind, name, namespace)
        assert found is not None
        found["metadata"]["finalizers"] = []
        key = self.key(found)
        self.store.put(key, found)
        self.store.remove(key)

    def write_log(
        self, namespace: str, pod: str, container: str, text: str | bytes, *, previous: bool = False,
        at: float | None = None,
    ) -> None:  # fmt: skip
        """Add to a container's log; `at` is when it was said, in seconds since 1970: now where it is None."""
        with self.store.changed:
            log = self.logs.setdefault((namespace, pod, container, previous), _Log())
            log.times.append((len(log.content), time.time() if at is None else at))
            log.content += text.encode() if isinstance(text, str) else text
            self.store.changed.notify_all()

    def clear_log(self, namespace: str, pod: str, container: str) -> None:
        """The container starts again, and has said nothing yet."""
        with self.store.changed:
            self.logs[(namespace, pod, container, False)] = _Log()
            self.store.changed.notify_all()

    def end_log(self, namespace: str, pod: str, container: str) -> None:
        """The container ends: whoever follows its log gets the end of it."""
        with self.store.changed:
            self.logs.setdefault((namespace, pod, container, False), _Log()).ended = True
            self.store.changed.notify_all()

    def listen_in_pod(self, namespace: str, pod: str, port: int, real_port: int) -> None:
        """What listens on a port of a pod: a real port of this machine."""
        self.pod_ports[(namespace, pod, port)] = real_port

    # --- faults -----------------------------------------------------------------------------------------------

    def deny(self, verb: str, resource: str, namespace: str = "", user: str = "tester") -> None:
        """RBAC: `*` for every verb or resource; an empty namespace is all of them."""
        self.denied.append((user, verb, resource, namespace))

    def may(self, user: str, verb: str, resource: str, namespace: str) -> bool:
        """Whether a user may do something."""
        return not any(
            who == user and what in ("*", verb) and which in ("*", resource) and where in ("", namespace)
            for who, what, which, where in self.denied
        )

    def fail(self, path: str, **what: Any) -> None:
        """Let requests whose path matches fail; see `Fault`."""
        with self.lock:
            self.faults.append(Fault(path, **what))

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, counted."""
        with self.lock:
            for each in self.faults:
                if each.times > 0 and each.method in ("", method) and re.search(each.path, path):
                    each.times -= 1
                    return each
        return None

    def break_connections(self) -> None:
        """Break every connection that is open now."""
        if self._http:
            self._http.break_connections()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: KubeServer) -> None:
        self.owner = owner
        self.sockets: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.sockets.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no errors."""

    def break_connections(self) -> None:
        for each in list(self.sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the library's names

    def _answer(self) -> None:
        owner = self.server.owner
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        with owner.lock:
            owner.requests.append((self.command, self.path))
        fault = owner.fault_for(self.command, self.path)
        if fault and fault.hang:
            owner.closing.wait()
            self.close_connection = True
            return
        if fault and fault.status:
            self._send_fault(fault)
            return
        try:
            self._route(unquote(parts.path), query, body, fault)
        except Refused as refused:
            self._send(refused.code, refused.status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send_fault(self, fault: Fault) -> None:
        if fault.body is not None:
            self._send_bytes(fault.status, fault.body, "text/html")
            return
        extra = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
        self._send(fault.status, status(fault.status, "ServiceUnavailable", "the server is asked to fail"), extra)

    def _user(self) -> str:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        user = self.server.owner.tokens.get(token)
        if user is None:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return self.headers.get("Impersonate-User") or user

    def _route(self, path: str, query: dict[str, str], body: bytes, fault: Fault | None) -> None:
        owner = self.server.owner
        user = self._user()
        answers = Answers(owner, user)
        if discovered := answers.discovery(path):
            self._send(200, discovered)
            return
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            self._send(201, answers.review(json.loads(body)))
            return
        match = _PATH.fullmatch(path)
        resource = answers.resource(match) if match else None
        if match is None or resource is None:
            self._send_bytes(404, b"404 page not found\n", "text/plain; charset=utf-8")
            return
        namespace, name, sub = match["namespace"] or "", match["name"] or "", (match["sub"] or "").lstrip("/")
        if resource.kind == "Pod" and sub:
            self._pod(answers, namespace, name, sub, query)
            return
        version = match["version"] or "v1"
        if self.command == "GET" and not name and query.get("watch") in {"true", "1"}:
            answers.check("watch", resource, namespace)
            self._watch(answers, resource, version, namespace, query, fault)
            return
        code, found = answers.answer(self.command, resource, version, namespace, name, sub, query, body,
                                     self.headers.get("Content-Type") or "")  # fmt: skip
        self._send(code, found)

    # --- streams ----------------------------------------------------------------------------------------------

    def _watch(
        self, answers: Answers, resource: Resource, version: str, namespace: str, query: dict[str, str],
        fault: Fault | None,
    ) -> None:  # fmt: skip
        owner = self.server.owner
        at = int(query.get("resourceVersion") or owner.store.version)
        self._begin_stream("application/json")
        if at < owner.store.oldest - 1 or (at == owner.store.oldest - 1 and owner.store.oldest > 100):
            gone = status(410, "Expired", f"too old resource version: {at} ({owner.store.oldest})")
            self._line({"type": "ERROR", "object": gone})
            self._end_stream()
            return
        deadline = time.monotonic() + float(query.get("timeoutSeconds") or 300)
        sent = 0
        while not owner.closing.is_set():
            with owner.store.changed:
                found = [each for each in owner.store.since(at) if each.key[0] == resource.name]
                if not found and at < owner.store.oldest - 1:
                    gone = status(410, "Expired", f"too old resource version: {at} ({owner.store.oldest})")
                    self._line({"type": "ERROR", "object": gone})
                    break
                if not found:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    owner.store.changed.wait(min(left, 1.0))
                    continue
            for each in found:
                at = each.version
                if namespace in ("", each.key[1]) and answers.selected(each.document, query):
                    shown = each.document | {"apiVersion": answers.api_version(resource, version)}
                    sent += self._line({"type": each.event, "object": shown}, fault, sent)
        self._bookmark(resource, version, answers, at)
        self._end_stream()

    def _bookmark(self, resource: Resource, version: str, answers: Answers, at: int) -> None:
        mark = {"apiVersion": answers.api_version(resource, version), "kind": resource.kind,
                "metadata": {"resourceVersion": str(at)}}  # fmt: skip
        self._line({"type": "BOOKMARK", "object": mark})

    def _line(self, event: Document, fault: Fault | None = None, sent: int = 0) -> int:
        data = json.dumps(event).encode() + b"\n"
        if fault and fault.cut is not None and sent + len(data) > fault.cut:
            self._chunk(data[: max(1, fault.cut - sent)])
            self.connection.shutdown(socket.SHUT_RDWR)
            raise BrokenPipeError
        self._chunk(data)
        return len(data)

    def _begin_stream(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    # --- pods -------------------------------------------------------------------------------------------------

    def _pod(self, answers: Answers, namespace: str, name: str, sub: str, query: dict[str, str]) -> None:
        owner = self.server.owner
        resource = next(each for each in owner.resources if each.kind == "Pod")
        if sub in {"status"}:
            length_body = b""
            code, found = answers.answer(self.command, resource, "v1", namespace, name, sub, query, length_body, "")
            self._send(code, found)
            return
        verb = "create" if sub == "portforward" else "get"
        answers.check(verb, resource, namespace, f"pods/{sub.partition(':')[0].partition('/')[0]}")
        pod = owner.store.get(("pods", namespace, name.removeprefix("https:").partition(":")[0]))
        if pod is None:
            raise Refused(404, "NotFound", f'pods "{name}" not found')
        if sub == "log":
            self._log(pod, namespace, name, query)
        elif sub.partition("/")[0] == "proxy":
            self._proxy(namespace, name, sub)
        elif sub == "portforward":
            self._forward(pod, namespace, name, query)
        else:
            self._send_bytes(404, b"404 page not found\n", "text/plain")

    def _log(self, pod: Document, namespace: str, name: str, query: dict[str, str]) -> None:
        owner = self.server.owner
        spec = pod.get("spec") or {}
        containers = [each["name"] for each in (spec.get("initContainers") or []) + (spec.get("containers") or [])]
        container = query.get("container") or (containers[0] if len(containers) == 1 else "")
        if container not in containers:
            raise Refused(400, "BadRequest", f"container {container} is not valid for pod {name}")
        log = owner.logs.get((namespace, name, container, query.get("previous") == "true"))
        if log is None and not spec.get("nodeName"):
            log = _Log(ended=True)  # not scheduled yet: nothing, and no error
        if log is None and _has_ended(pod, container):
            # As the kubelet: of a container that waits to be started again, the log is that of its last run.
            log = self.server.owner.logs.get((namespace, name, container, True))
        if log is None:
            if query.get("previous") == "true":
                text = f'previous terminated container "{container}" in pod "{name}" not found'
            else:
                text = f'container "{container}" in pod "{name}" is waiting to start: PodInitializing'
            raise Refused(400, "BadRequest", text)
        self._begin_stream("text/plain")
        if query.get("timestamps") == "true":
            if content := _stamped(log, query.get("sinceTime"))[: int(query.get("limitBytes") or 1 << 40)]:
                self._chunk(content)
            self._end_stream()
            return
        start = _tail_start(bytes(log.content), query.get("tailLines"))
        for piece in self._log_pieces(log, start, follow=query.get("follow") == "true"):
            self._chunk(piece)
        self._end_stream()

    def _log_pieces(self, log: _Log, start: int, *, follow: bool) -> Iterator[bytes]:
        owner = self.server.owner
        while True:
            with owner.store.changed:
                piece = bytes(log.content[start:])
                if not piece:
                    if not follow or log.ended or owner.closing.is_set():
                        return
                    owner.store.changed.wait(1.0)
                    continue
            start += len(piece)
            yield piece

    def _proxy(self, namespace: str, name: str, sub: str) -> None:
        secure, name = name.startswith("https:"), name.removeprefix("https:")
        pod, _, port = name.partition(":")
        real = self.server.owner.pod_ports.get((namespace, pod, int(port or 80)))
        if real is None:
            raise Refused(
                503, "ServiceUnavailable", f"error trying to reach service: dial tcp 10.0.0.1:{port}: refused"
            )
        # A real one trusts no certificate of a pod either: it asks whether there is one.
        tls = {"context": ssl._create_unverified_context()} if secure else {}
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind("127.0.0.1", real, timeout=10, **tls)
        connection.request("GET", sub.removeprefix("proxy") or "/")
        answer = connection.getresponse()
        self._send_bytes(answer.status, answer.read(), answer.getheader("Content-Type") or "text/plain")
        connection.close()

    def _forward(self, pod: Document, namespace: str, name: str, query: dict[str, str]) -> None:
        if not (pod.get("spec") or {}).get("nodeName"):
            raise Refused(400, "BadRequest", f"pod {name} does not have a host assigned")
        if (self.headers.get("Upgrade") or "").lower() != "websocket":
            raise Refused(400, "BadRequest", "Upgrade request required")
        port = int(query["ports"])
        handshake(self)
        self.close_connection = True
        carry(self.connection, port, self.server.owner.pod_ports.get((namespace, name, port)))

    # --- plain answers ----------------------------------------------------------------------------------------

    def _send(self, code: int, document: Document, extra: dict[str, str] | None = None) -> None:
        self._send_bytes(code, json.dumps(document).encode(), "application/json", extra)

    def _send_bytes(self, code: int, body: bytes, content_type: str, extra: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (extra or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


def _has_ended(pod: Document, container: str) -> bool:
    """Whether a container waits, and has run before."""
    status = pod.get("status") or {}
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if each["name"] == container:
            return "waiting" in (each.get("state") or {}) and "terminated" in (each.get("lastState") or {})
    return False


def _stamped(log: _Log, since: str | None) -> bytes:
    """Lines as the kubelet hands them out with their times: digits of a second without the zeros at their end."""
    first = datetime.fromisoformat(since).timestamp() if since else 0.0
    pieces = []
    for number, (when, line) in enumerate(log.lines()):
        micros = round(when * 1e6) + number  # no two lines at once
        if micros >= first * 1e6:
            second = datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            part = f"{micros % 1_000_000:06}".rstrip("0")
            pieces.append(f"{second}{'.' if part else ''}{part}Z ".encode() + line)
    return b"".join(pieces)


def _tail_start(content: bytes, lines: str | None) -> int:
    if lines is None:
        return 0
    wanted = int(lines)
    ends = [index + 1 for index, byte in enumerate(content) if byte == 10]
    starts = [0, *ends]
    if content.endswith(b"\n"):
        starts.pop()
    return starts[max(0, len(starts) - wanted)] if wanted and starts else len(content)
