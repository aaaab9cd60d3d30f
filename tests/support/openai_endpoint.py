"""An OpenAI-compatible endpoint whose answers are scripted, as no engine can be made to fail in each of these ways."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler

NAME = "harbor"


class Behaviour:
    """How an endpoint answers; each part can be replaced."""

    models: tuple = ({"id": NAME, "max_model_len": 32},)
    health = 200
    refuses = True
    status_too_long = 400
    calls_tools = True
    tool_pieces: tuple = (("get_weather", ""), ("", '{"city": '), ("", '"Paris"}'))
    ends_streams = True
    token = ""
    text = "four"


def handler(behaviour: type[Behaviour]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments):
            return

        def say(self, status: int, content: object, kind: str = "application/json"):
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/health":
                self.say(behaviour.health, "")
            elif behaviour.token and self.headers.get("Authorization") != f"Bearer {behaviour.token}":
                self.say(401, {"error": {"message": "who are you?"}})
            else:
                self.say(200, {"data": list(behaviour.models)})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            usage = {"completion_tokens": 3}
            if behaviour.refuses and len(str(body.get("prompt", "")).split()) > 32:
                self.say(behaviour.status_too_long, {"error": {"message": "This model's maximum context length is 32"}})
            elif body.get("stream"):
                self.say(200, _stream(behaviour, usage, tools=bool(body.get("tools"))), "text/plain")
            elif body.get("tools") and behaviour.calls_tools:
                call = {"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
                self.say(200, {"choices": [{"message": {"content": None, "tool_calls": [call]}}]})
            else:
                text = behaviour.text
                self.say(200, {"choices": [{"text": text, "message": {"content": text}}], "usage": usage})

    return Handler


def _stream(behaviour: type[Behaviour], usage: dict, *, tools: bool) -> str:
    pieces = [{"content": each} for each in behaviour.text]
    if tools and behaviour.tool_pieces:
        calls = ({"name": name, "arguments": text} for name, text in behaviour.tool_pieces)
        pieces = [{"tool_calls": [{"index": 0, "function": each}]} for each in calls]
    events = [*({"choices": [{"delta": each}]} for each in pieces), {"choices": [], "usage": usage}]
    end = "data: [DONE]\n\n" if behaviour.ends_streams else ""
    return "".join(f"data: {json.dumps(each)}\n\n" for each in events) + end
