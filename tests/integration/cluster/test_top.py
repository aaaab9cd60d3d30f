"""`berth top`: engines and cards asked through the API server's proxy; what is not there is said."""

from __future__ import annotations

import json
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from kube_server import KubeServer
from servers import make_certificates
from serving_scenes import NAMESPACE, Scene


def pages(*given: str) -> type[BaseHTTPRequestHandler]:
    """A handler that answers with these pages, one after the other."""
    left = list(given)

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    return Pages


def metrics(http_server: Any, *given: str) -> int:
    """A port that answers with these pages."""
    return int(http_server(pages(*given)).url.rpartition(":")[2])


def test_engines_and_cards(on_cluster: Any, scene: Scene, server: KubeServer, http_server: Any) -> None:
    scene.ready()
    page = "vllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.5\nvllm:generation_tokens_total "
    engine = metrics(http_server, f"{page}0\n", f"{page}50\n")
    server.listen_in_pod(NAMESPACE, scene.pod, 8080, engine)
    about = {"name": "dcgm", "namespace": "default", "labels": {"app": "nvidia-dcgm-exporter"}}
    spec = {"nodeName": "gpu-1", "containers": [{"name": "exporter"}]}
    server.put({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})
    place = f'{{gpu="0",namespace="{NAMESPACE}",pod="{scene.pod}"}}'
    cards = f"DCGM_FI_DEV_GPU_UTIL{place} 87\nDCGM_FI_DEV_FB_USED{place} 20480\n"
    server.listen_in_pod("default", "dcgm", 9400, metrics(http_server, cards))
    done = on_cluster("top", "--seconds", "0.5", "-o", "json")
    (pod,) = json.loads(done.stdout)["pods"]
    assert (pod["service"], pod["engine"]["kvCacheShare"]) == ("mistral", 0.5)
    assert 0 < pod["tokensPerSecond"] <= 100  # 50 tokens in half a second or, on a busy machine, more
    assert pod["gpus"] == [{"utilizationPercent": 87.0, "usedMiB": 20480.0, "freeMiB": 0.0}]
    row = on_cluster("top", "mistral", "--seconds", "0").stdout.splitlines()[1].split()
    assert row[2:7] == ["87%", "20.0", "GiB", "50%", "3"]


def test_an_engine_that_speaks_tls(on_cluster: Any, scene: Scene, server: KubeServer, tmp_path: Path) -> None:
    scene.ready()
    pod = server.get("Pod", scene.pod, NAMESPACE)
    assert pod is not None
    probe = {"httpGet": {"scheme": "HTTPS", "path": "/health", "port": 8000}}
    pod["spec"]["containers"][0] |= {"ports": [{"containerPort": 8000}], "readinessProbe": probe}
    server.put(pod)
    _, certificate, key = make_certificates(tmp_path / "tls")
    with ThreadingHTTPServer(("127.0.0.1", 0), pages("vllm:num_requests_running 7\n")) as engine:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        engine.socket = context.wrap_socket(engine.socket, server_side=True)
        Thread(target=engine.serve_forever, daemon=True).start()
        server.listen_in_pod(NAMESPACE, scene.pod, 8000, engine.server_port)
        done = on_cluster("top", "--seconds", "0", "-o", "json")
        engine.shutdown()
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["pods"]
    assert found["engine"]["running"] == 7


def test_what_is_not_there_is_said(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    done = on_cluster("top", "--seconds", "0")
    assert done.returncode == 0
    assert "no DCGM exporter" in done.stderr
    assert f"{scene.pod}: no metrics" in done.stderr
