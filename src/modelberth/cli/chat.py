"""`berth chat`."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from modelberth.base.text import printable
from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from modelberth.adapters.kubernetes_api import Target
    from modelberth.adapters.openai_answers import StreamedAnswer
    from modelberth.base.errors import BerthError
    from modelberth.flows.conversation import Partner, Piece, Round

EPILOG = """\b
Examples:
  berth chat mistral-small-24b -n private-ai                     until /exit or the end of input
  berth chat mistral-small-24b mistral-small-24b-tp4             the same question to both
  berth chat http://127.0.0.1:43655 --prompt "What is KServe?"   one question, then out
  echo "What is KServe?" | berth chat mistral -o json            for a program

\b
/reset begins a new conversation, /exit ends it; Ctrl-C stops an answer, and at the prompt the conversation.
Times are told on standard error."""


@click.command(epilog=EPILOG)
@click.argument("targets", nargs=-1, required=True, metavar="SERVICE|URL...")
@cluster_options()
@click.option("--model", metavar="NAME", show_envvar=True, help="Model to ask for.  [default: the only one offered]")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", envvar="BERTH_CHAT_PROMPT", show_envvar=True,
              help="Say this, and end.  [default: lines of standard input]")  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(1, 65536), default=512, show_envvar=True, help="Longest answer in tokens."
)
@output_option("table", "json", "yaml")
def command(
    targets: tuple[str, ...], *, target: Target, model: str | None, prompts: tuple[str, ...], max_tokens: int, form: str
) -> None:
    """Talk to services of the cluster, or to any OpenAI-compatible endpoints; several get the same questions."""
    from modelberth.flows.conversation import partners

    with partners(targets, target, model) as found:
        said: list[dict[str, Any]] = []
        for text in prompts or _lines():
            if text == "/reset":
                for each in found:
                    each.history.clear()
            else:
                said += _answers(found, text, max_tokens, form)
        if form != "table":
            from modelberth.cli.output import document

            document({"schemaVersion": "modelberth.dev/chat/v1", "answers": said}, form)


def _lines() -> Iterator[str]:
    """What a person types, or what comes in through a pipe."""
    while True:
        if _is_person():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/exit":
            return
        if line.strip():
            yield line.strip()


@dataclass
class _Said:
    """One answer as far as it has come."""

    name: str
    model: str
    text: str = ""
    answer: StreamedAnswer | None = None
    error: BerthError | None = None

    def take(self, piece: Piece) -> None:
        """The next piece; nothing comes after one that ends it."""
        self.text = piece.answer.answer.text if piece.answer else self.text + piece.text
        self.answer, self.error = piece.answer, piece.error

    @property
    def is_stopped(self) -> bool:
        return self.answer is None and self.error is None


def _answers(found: list[Partner], text: str, max_tokens: int, form: str) -> list[dict[str, Any]]:
    """What everybody says, as it comes; Ctrl-C of a person ends the answers, a second one the conversation.

    Raises:
        BerthError: an answer did not come, and nobody sits there who could go on.
    """
    from modelberth.flows.conversation import Round

    said = [_Said(each.name, each.model) for each in found]
    asked = Round(found, text, max_tokens)
    with _view(said, form) as show:
        _take_all(asked, said, show)
    if form == "table":
        _tell(said)
    failed = next((each.error for each in said if each.error), None)
    if failed is not None and not _is_person():
        raise failed
    return [_plain(each, text) for each in said]


def _take_all(asked: Round, said: list[_Said], show: Callable[[str], None]) -> None:
    from modelberth.base.errors import Interrupted
    from modelberth.cli.errors import catch_signals

    while True:
        try:
            while (piece := asked.next()) is not None:
                said[piece.partner].take(piece)
                show(piece.text)
            return
        except Interrupted:
            if asked.is_stopped or not _is_person():
                raise
            asked.stop()
            catch_signals()


def _is_person() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def _view(said: list[_Said], form: str) -> Iterator[Callable[[str], None]]:
    """How answers are shown while they come: one piece by piece, several beside each other where a person looks."""
    from modelberth.cli.output import data, is_terminal, piece

    if form != "table":
        yield lambda _text: None
    elif len(said) == 1:
        yield piece
        data("")
    else:
        with _live(said) if is_terminal(sys.stdout) else nullcontext():
            yield lambda _text: None
        data(_beside(said))


def _live(said: list[_Said]) -> AbstractContextManager[object]:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    return Live(console=console, get_renderable=lambda: _beside(said), transient=True, refresh_per_second=8,
                redirect_stdout=False, redirect_stderr=False)  # fmt: skip


def _beside(said: list[_Said]) -> str:
    from modelberth.cli.output import side_by_side

    return "\n".join(side_by_side([f"{each.name}: {printable(each.text)}" for each in said]))


def _tell(said: list[_Said]) -> None:
    """How each answer ended, on standard error."""
    from modelberth.cli.errors import message
    from modelberth.cli.output import talk

    for each in said:
        if each.answer:
            talk(
                f"{each.name}: first token {each.answer.first_seconds:.2f} s, {each.answer.answer.tokens} tokens, "
                f"{each.answer.tokens_per_second:.1f} tokens/s"
            )
        elif each.error and _is_person():
            talk(*message(each.error))
        elif each.is_stopped:
            talk(f"{each.name}: stopped; neither question nor answer is remembered")


def _plain(said: _Said, prompt: str) -> dict[str, Any]:
    one = said.answer
    return {
        "name": said.name, "model": said.model, "prompt": prompt, "text": said.text,
        "stopped": said.is_stopped, "tokens": one.answer.tokens if one else None,
        "firstTokenSeconds": round(one.first_seconds, 6) if one else None,
        "tokensPerSecond": round(one.tokens_per_second, 3) if one else None,
    }  # fmt: skip
