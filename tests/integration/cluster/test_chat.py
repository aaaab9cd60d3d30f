"""`berth chat`: the same questions to several variants, with a history each; through a tunnel or any URL."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from kube_server import KubeServer
from openai_endpoint import Behaviour, handler
from serving_scenes import NAMESPACE, Scene

BERTH = Path(sys.executable).with_name("berth")


def endpoint(http_server: Any, **parts: object) -> str:
    url: str = http_server(handler(type("Changed", (Behaviour,), parts))).url
    return url


def test_several_variants_get_the_same_question(berth: Any, http_server: Any) -> None:
    one, two = endpoint(http_server, text="four"), endpoint(http_server, text="5\x1b[31m")
    done = berth("chat", one, f"{two}/v1", "--prompt", "2 + 2?")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.split() == [f"{one}:", "four", f"{two}/v1:", "5"]
    assert "tokens/s" in done.stderr


def test_a_conversation_has_a_history(http_server: Any) -> None:
    seen: list[list[dict[str, str]]] = []
    original = handler(Behaviour)

    class Listening(original):  # type: ignore[misc, valid-type]
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            seen.append(json.loads(body)["messages"])
            self.rfile = io.BytesIO(body)
            super().do_POST()

    url = http_server(Listening).url
    given = "one\ntwo\n/reset\nthree\n/exit\nnever\n"
    done = subprocess.run([BERTH, "chat", url, "-o", "json"], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [[each["content"] for each in messages] for messages in seen] == [["one"], ["one", "four", "two"], ["three"]]
    document = json.loads(done.stdout)
    assert [each["prompt"] for each in document["answers"]] == ["one", "two", "three"]


def test_a_service_of_the_cluster(on_cluster: Any, scene: Scene, server: KubeServer, http_server: Any) -> None:
    scene.ready()
    url = endpoint(http_server)
    server.listen_in_pod(NAMESPACE, scene.pod, 8080, int(url.rpartition(":")[2]))
    done = on_cluster("chat", "mistral", "--prompt", "2 + 2?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "four"


def test_several_models_and_none_is_named(berth: Any, http_server: Any) -> None:
    url = endpoint(http_server, models=({"id": "a"}, {"id": "b"}))
    done = berth("chat", url, "--prompt", "x")
    assert done.returncode == 7
    assert "offered: a, b" in done.stderr
    assert berth("chat", url, "--prompt", "x", "--model", "b").returncode == 0


def test_nobody_there(berth: Any) -> None:
    done = berth("chat", "http://127.0.0.1:9", "--prompt", "x")
    assert done.returncode in {6, 9}
    assert "Traceback" not in done.stderr
