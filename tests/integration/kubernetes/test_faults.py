"""An API server that fails, hangs, goes away or forgets: what is tried again, what is told, and that nothing spins."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from threading import enumerate as enumerate_threads

import httpx2
import pytest

from half_open import HalfOpen
from kube_server import KubeServer
from modelberth.adapters.kubernetes_api import Change, Cluster, Ref, Target, Watch, connect, forward, watch
from modelberth.adapters.kubernetes_api.kinds import CONFIG_MAPS, PODS
from modelberth.base.errors import AuthError, RemoteUnavailable, UsageError
from servers import make_certificates
from tls_front import tls_front

PATIENCE = 30.0
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}


@pytest.fixture
def cluster(server: KubeServer, tmp_path: Path) -> Iterator[Cluster]:
    with connect(Target(kubeconfig=server.kubeconfig(tmp_path), timeout=5.0)) as connected:
        yield connected


@pytest.fixture
def watching(cluster: Cluster) -> Iterator[Callable[[], SimpleQueue[Change]]]:
    begun = []

    def begin() -> SimpleQueue[Change]:
        changes: SimpleQueue[Change] = SimpleQueue()
        begun.append(Watch(cluster, CONFIG_MAPS, "default", changes).start())
        return changes

    yield begin
    for each in begun:
        each.stop()


def requests(server: KubeServer, method: str, part: str) -> int:
    return sum(1 for verb, path in server.requests if verb == method and part in path)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_failure_that_passes_is_waited_out(server: KubeServer, cluster: Cluster, status: int) -> None:
    server.fail("/configmaps", status=status, times=2, retry_after=0)
    assert cluster.apply(MAP)["data"] == {"k": "v"}
    assert requests(server, "PATCH", "/configmaps/a") == 3


def test_a_failure_that_stays_is_told_with_what_was_asked(server: KubeServer, cluster: Cluster) -> None:
    server.fail("/configmaps", status=503, times=99)
    with pytest.raises(RemoteUnavailable, match="the API server answered 503: apply ConfigMap default/a"):
        cluster.apply(MAP)
    assert requests(server, "PATCH", "/configmaps/a") == 4


def test_an_invalid_manifest_is_not_sent_again(server: KubeServer, cluster: Cluster) -> None:
    said = {"kind": "Status", "message": "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .x: no"}
    server.fail("/configmaps", status=500, times=99, body=json.dumps(said).encode())
    with pytest.raises(UsageError, match="does not take it"):
        cluster.apply(MAP)
    assert requests(server, "PATCH", "/configmaps/a") == 1


def test_what_must_not_be_done_twice_is_not(server: KubeServer, cluster: Cluster) -> None:
    server.fail("/configmaps", status=503, times=99)
    with pytest.raises(RemoteUnavailable):
        cluster.create(MAP)
    assert requests(server, "POST", "/configmaps") == 1


def test_apply_needs_the_right_to_create_too(server: KubeServer, cluster: Cluster) -> None:
    server.deny("create", "configmaps")
    with pytest.raises(AuthError) as caught:
        cluster.apply(MAP)
    assert "cannot create" in caught.value.why


def test_a_webhook_that_refuses_is_named(server: KubeServer, cluster: Cluster) -> None:
    said = {
        "kind": "Status",
        "code": 403,
        "message": 'admission webhook "hardware.opendatahub.io" denied the request: no',
    }
    server.fail("/configmaps", status=403, body=json.dumps(said).encode())
    with pytest.raises(UsageError, match="a webhook refused") as caught:
        cluster.apply(MAP)
    assert (caught.value.where, caught.value.why) == ("hardware.opendatahub.io", "no")


def test_a_page_for_people_is_no_api_server(server: KubeServer, cluster: Cluster) -> None:
    server.fail("/version", status=200, body=b"<html>Sign in</html>")
    with pytest.raises(UsageError, match="no Kubernetes API server answers there"):
        cluster.version()


def test_a_server_that_hangs_is_given_up(server: KubeServer, tmp_path: Path) -> None:
    server.fail("/version", hang=True, times=99)
    with (
        connect(Target(kubeconfig=server.kubeconfig(tmp_path), timeout=0.3)) as impatient,
        pytest.raises(RemoteUnavailable, match="does not answer"),
    ):
        impatient.version()


def test_nobody_there(tmp_path: Path) -> None:
    server = KubeServer()
    server.start()
    config = server.kubeconfig(tmp_path)
    server.stop()
    with connect(Target(kubeconfig=config)) as cluster, pytest.raises(RemoteUnavailable) as caught:
        cluster.version()
    assert server.url in caught.value.where


def test_a_token_that_ends_is_an_authentication_error_without_it(server: KubeServer, tmp_path: Path) -> None:
    with connect(Target(kubeconfig=server.kubeconfig(tmp_path, token="secret-canary"))) as cluster:
        with pytest.raises(AuthError) as caught:
            cluster.version() and cluster.list(PODS)
        shown = f"{caught.value} {caught.value.where} {caught.value.why} {caught.value.next_step} {cluster.wire!r}"
    assert "canary" not in shown


def test_a_watch_goes_on_after_the_server_came_back(
    server: KubeServer, watching: Callable[[], SimpleQueue[Change]]
) -> None:
    changes = watching()
    assert changes.get(timeout=PATIENCE).event == "listed"
    server.stop()
    assert changes.get(timeout=PATIENCE).event == "lost"
    server.put(MAP)
    server.start()
    seen = [changes.get(timeout=PATIENCE).event for _ in range(2)]
    assert seen[0] == "restored"
    assert seen[1] in {"changed", "listed"}


def test_a_watch_lists_again_when_the_history_is_gone(
    server: KubeServer, watching: Callable[[], SimpleQueue[Change]]
) -> None:
    changes = watching()
    assert changes.get(timeout=PATIENCE).event == "listed"
    server.put(MAP)
    assert changes.get(timeout=PATIENCE).event == "changed"
    with server.store.changed:
        server.store.forget_history()
        server.store.forget_history()
    server.break_connections()
    events = []
    while "listed" not in events:
        events.append(changes.get(timeout=PATIENCE).event)
    assert set(events) <= {"lost", "restored", "listed"}


def test_a_stream_cut_in_the_middle_of_an_object_loses_nothing(
    server: KubeServer, watching: Callable[[], SimpleQueue[Change]]
) -> None:
    server.fail("watch=true", cut=100)
    changes = watching()
    assert changes.get(timeout=PATIENCE).event == "listed"
    server.put(MAP | {"data": {"k": "x" * 1000}})
    while True:
        change = changes.get(timeout=PATIENCE)
        if change.event in {"changed", "listed"} and change.documents:
            break
    assert change.documents[0]["data"]["k"] == "x" * 1000


def test_a_socket_that_goes_dead_is_noticed(
    server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing says that nobody is there any more: only the time after which the server would have ended the watch."""
    monkeypatch.setattr("modelberth.adapters.kubernetes_api.watch.WATCH_SECONDS", 1)
    monkeypatch.setattr("modelberth.adapters.kubernetes_api.watch._SILENCE", 0.5)
    way = HalfOpen(int(server.url.rpartition(":")[2]))
    config = tmp_path / "half-open"
    config.write_text(server.kubeconfig(tmp_path).read_text().replace(server.url, f"http://127.0.0.1:{way.port}"))
    config.chmod(0o600)
    changes: SimpleQueue[Change] = SimpleQueue()
    with closing(way), connect(Target(kubeconfig=config, timeout=5.0)) as cluster:
        watching = Watch(cluster, CONFIG_MAPS, "default", changes).start()
        assert changes.get(timeout=PATIENCE).event == "listed"
        server.put(MAP)
        assert changes.get(timeout=PATIENCE).event == "changed"
        way.freeze()
        server.put(MAP | {"data": {"k": "other"}})
        seen = []
        while not seen or seen[-1].event not in {"changed", "listed"}:
            seen.append(changes.get(timeout=PATIENCE))
        watching.stop()
    assert [each.event for each in seen][:2] == ["lost", "restored"]
    assert seen[-1].documents[0]["data"] == {"k": "other"}


def test_a_server_that_is_down_is_not_asked_more_than_once_a_second(
    server: KubeServer, watching: Callable[[], SimpleQueue[Change]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: SimpleQueue[float] = SimpleQueue()
    server.fail("/configmaps", status=410, times=99)

    def pause(self: object, seconds: float) -> bool:
        pauses.put(seconds)
        return False

    monkeypatch.setattr(watch.Watch, "_wait", pause)
    changes = watching()
    assert changes.get(timeout=PATIENCE).event == "lost"
    seen = [pauses.get(timeout=PATIENCE) for _ in range(6)]
    assert min(seen) >= 1.0
    assert max(seen) <= 45.0
    assert seen[4] > seen[0]


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"hello " + self.path.encode() * 5000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def pod(server: KubeServer) -> str:
    spec = {"nodeName": "n", "containers": [{"name": "main"}]}
    server.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    return "p"


def test_a_port_forward_carries_many_connections(server: KubeServer, cluster: Cluster, pod: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        server.listen_in_pod("default", pod, 8080, http.server_port)
        with forward(cluster, "default", pod, 8080) as tunnel:
            answers: list[bytes] = []

            def ask(number: int) -> None:
                answers.append(httpx2.get(f"http://127.0.0.1:{tunnel.port}/{number}").content)

            threads = [Thread(target=ask, args=(number,)) for number in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                each.join(PATIENCE)
        assert sorted(answers) == sorted(b"hello " + f"/{number}".encode() * 5000 for number in range(8))
        http.shutdown()


def test_a_port_where_nobody_listens_says_so(server: KubeServer, cluster: Cluster, pod: str) -> None:
    with forward(cluster, "default", pod, 9999) as tunnel:
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"http://127.0.0.1:{tunnel.port}/", timeout=5)
        assert "connection refused" in tunnel.error


@pytest.mark.parametrize("secure", [False, True])
def test_connections_end_with_the_tunnel(server: KubeServer, tmp_path: Path, pod: str, *, secure: bool) -> None:
    """Nothing of a tunnel outlives it, even where the pod's side says nothing more: a command would never end."""
    with ExitStack() as held:
        front = None
        if secure:
            authority, certificate, key = make_certificates(tmp_path / "tls")
            front = held.enter_context(tls_front(int(server.url.rpartition(":")[2]), certificate, key)), authority
        config = server.kubeconfig(tmp_path, front=front)
        cluster = held.enter_context(connect(Target(kubeconfig=config, timeout=5.0)))
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.listen_in_pod("default", pod, 8080, listener.getsockname()[1])
        with forward(cluster, "default", pod, 8080) as tunnel:
            client = held.enter_context(socket.create_connection(("127.0.0.1", tunnel.port), timeout=PATIENCE))
            client.sendall(b"question" * 20_000)
            listener.settimeout(PATIENCE)
            there = held.enter_context(listener.accept()[0])
            if not there.recv(1, socket.MSG_PEEK):  # the tunnel's own probe, where it has come so far
                there = held.enter_context(listener.accept()[0])
            there.settimeout(PATIENCE)
            assert _received(there, 160_000) == b"question" * 20_000
            there.sendall(b"answer" * 20_000)
            assert _received(client, 120_000) == b"answer" * 20_000
        assert client.recv(1) == b""
        assert not [each for each in enumerate_threads() if each.name == "port-forward"]


def _received(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = connection.recv(65536)
        assert piece, f"it ended after {len(content)} bytes"
        content += piece
    return content


def test_a_port_forward_that_is_not_allowed(server: KubeServer, cluster: Cluster, pod: str) -> None:
    server.deny("create", "pods/portforward")
    with pytest.raises(AuthError, match="not allowed: forward a port"), forward(cluster, "default", pod, 8080):
        pass


def test_a_log_is_followed_to_its_end(server: KubeServer, cluster: Cluster, pod: str) -> None:
    server.write_log("default", pod, "main", "one\ntwo\n" + "x" * 200_000 + "\n")
    lines = cluster.logs("default", pod, "main", follow=True)
    assert [next(lines), next(lines)] == [b"one", b"two"]
    server.write_log("default", pod, "main", "three\n")
    server.end_log("default", pod, "main")
    rest = list(lines)
    assert rest[-1] == b"three"
    assert b"".join(rest[:-1]) == b"x" * 200_000
    assert max(map(len, rest)) <= 2 * 64 * 1024
    assert list(cluster.logs("default", pod, "main", tail=1)) == [b"three"]


def test_a_container_that_has_not_started_has_no_log(server: KubeServer, cluster: Cluster, pod: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(cluster.logs("default", pod, "main"))
    assert "waiting to start" in caught.value.why


def test_an_object_that_is_gone_is_no_error(cluster: Cluster) -> None:
    assert cluster.get(Ref(CONFIG_MAPS, "none", "default")) is None
    assert cluster.delete(Ref(CONFIG_MAPS, "none", "default")) is False
