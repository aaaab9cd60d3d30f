"""`berth chat` on a terminal: answers beside each other while they come, and Ctrl-C that stops an answer alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from terminal import PATIENCE, Terminal

BERTH = Path(sys.executable).with_name("berth")


class Slow:
    """An endpoint that says the first word of an answer and waits for more time."""

    def __init__(self, http_server: Any, word: str) -> None:
        self.asked: list[list[str]] = []
        self.go_on = Event()
        slow = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                return

            def do_GET(self) -> None:
                self.say(json.dumps({"data": [{"id": word}]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                slow.asked.append([each["content"] for each in body["messages"]])
                self.say(slow.piece(f"{word}-begins "))
                slow.go_on.wait(PATIENCE)
                self.wfile.write((slow.piece(f"{word}-ends") + "data: [DONE]\n\n").encode())

            def say(self, text: str) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

        self.url = http_server(Handler).url

    def piece(self, text: str) -> str:
        return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


@pytest.fixture
def chat() -> Iterator[Callable[..., Terminal]]:
    begun: list[Terminal] = []

    def begin(*endpoints: Slow) -> Terminal:
        begun.append(Terminal([BERTH, "chat", *(each.url for each in endpoints)]))
        begun[-1].wait_for("> ")
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def test_answers_stand_beside_each_other_while_they_come(http_server: Any, chat: Callable[..., Terminal]) -> None:
    one, two = Slow(http_server, "one"), Slow(http_server, "two")
    terminal = chat(one, two)
    terminal.type("hello\n")
    terminal.wait_for("one-begins", "two-begins")
    one.go_on.set()
    two.go_on.set()
    terminal.wait_for("one-ends", "two-ends", "> ")
    terminal.type("/exit\n")
    assert terminal.ends() == 0


def test_ctrl_c_stops_the_answer_and_not_the_conversation(http_server: Any, chat: Callable[..., Terminal]) -> None:
    slow = Slow(http_server, "slow")
    terminal = chat(slow)
    terminal.type("first\n")
    terminal.wait_for("slow-begins")
    terminal.type("\x03")  # an endpoint that says nothing more is not waited for
    terminal.wait_for("stopped; neither question nor answer is remembered", "> ")
    slow.go_on.set()
    terminal.type("second\n")
    terminal.wait_for("slow-ends", "tokens/s", "> ")
    terminal.type("third\n")
    terminal.wait_for("slow-ends", "> ")
    assert slow.asked == [["first"], ["second"], ["second", "slow-begins slow-ends", "third"]]
    terminal.type("\x03")
    assert terminal.ends() == 130


def test_an_error_does_not_end_a_conversation(http_server: Any, chat: Callable[..., Terminal]) -> None:
    slow = Slow(http_server, "slow")
    slow.piece = lambda _text: "data: nonsense\n\n"  # type: ignore[method-assign]
    terminal = chat(slow)
    terminal.type("first\n")
    terminal.wait_for("error: the endpoint's answer is not as expected", "> ")
    slow.go_on.set()
    terminal.type("/exit\n")
    assert terminal.ends() == 0
