"""`berth top`: engines and cards asked through the API server's proxy; what is not there is said."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from kube_server import KubeServer
from serving_scenes import NAMESPACE, Scene


def metrics(http_server: Any, *pages: str) -> int:
    """A port that answers with these pages, one after the other."""
    left = list(pages)

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    return int(http_server(Pages).url.rpartition(":")[2])


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


def test_what_is_not_there_is_said(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    done = on_cluster("top", "--seconds", "0")
    assert done.returncode == 0
    assert "no DCGM exporter" in done.stderr
    assert f"{scene.pod}: no metrics" in done.stderr
