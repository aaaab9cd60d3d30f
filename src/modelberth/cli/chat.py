"""`berth chat`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from modelberth.base.text import printable
from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.conversation import Partner

EPILOG = """\b
Examples:
  berth chat mistral-small-24b -n private-ai                     until /exit or the end of input
  berth chat mistral-small-24b mistral-small-24b-tp4             the same question to both
  berth chat http://127.0.0.1:43655 --prompt "What is KServe?"   one question, then out
  echo "What is KServe?" | berth chat mistral -o json            for a program

\b
/reset begins a new conversation, /exit ends it. Times are told on standard error."""


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
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/exit":
            return
        if line.strip():
            yield line.strip()


def _answers(found: list[Partner], text: str, max_tokens: int, form: str) -> list[dict[str, Any]]:
    """What everybody says: of one as it comes, of several beside each other once all have answered."""
    from concurrent.futures import ThreadPoolExecutor

    from modelberth.cli.output import data, piece, side_by_side, talk

    if form == "table" and len(found) == 1:
        answers = [found[0].say(text, max_tokens, piece)]
        data("")
    else:
        with ThreadPoolExecutor(len(found)) as pool:
            answers = list(pool.map(lambda each: each.say(text, max_tokens, lambda _text: None), found))
    if form == "table":
        if len(found) > 1:
            texts = [f"{each.name}: {printable(one.answer.text)}" for each, one in zip(found, answers, strict=True)]
            data("\n".join(side_by_side(texts)))
        for each, one in zip(found, answers, strict=True):
            talk(
                f"{each.name}: first token {one.first_seconds:.2f} s, {one.answer.tokens} tokens, "
                f"{one.tokens_per_second:.1f} tokens/s"
            )
    return [
        {"name": each.name, "model": each.model, "prompt": text, "text": one.answer.text, "tokens": one.answer.tokens,
         "firstTokenSeconds": round(one.first_seconds, 6), "tokensPerSecond": round(one.tokens_per_second, 3)}
        for each, one in zip(found, answers, strict=True)
    ]  # fmt: skip
