"""The report of `berth size`: verdict, ledger, KV cache and settings for people, one document for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet

from modelberth.base.text import printable, shorten
from modelberth.base.units import format_decimal
from modelberth.cli import output
from modelberth.cli.size_explain import explanation
from modelberth.flows.memory_bar import uncharged_graphs
from modelberth.flows.size import SizeResult
from modelberth.flows.size_report import size_document
from modelberth.flows.size_words import headline, in_gib, marked_settings, subject, weight_parts
from modelberth.sizing.plan import Sizing
from modelberth.sizing.ranges import Range

_NUMBERS = frozenset({1, 2, 3})
_NAME = 100


def show(result: SizeResult, form: str, *, given: AbstractSet[str] = frozenset(), explain: bool = False) -> None:
    """Print a plan in one of the forms of `-o`.

    Args:
        result: the plan.
        form: `table`, `wide`, `json`, `yaml` or `name`.
        given: names of the fields of `EngineFlags` that the user set; the others are marked as defaults.
        explain: draw the memory of one GPU and say how each figure comes about, in the forms for people.
    """
    if form in {"json", "yaml"}:
        output.document(size_document(result.sizing), form)
    elif form == "name":
        output.data(result.sizing.verdict)
    else:
        lines = list(report_lines(result, given=given, wide=form == "wide"))
        if explain:
            lines += ["", *explanation(result.sizing, output.width())]
        output.data("\n".join(lines))


def ledger_lines(sizing: Sizing, *, wide: bool = False) -> Iterator[str]:
    """The ledger of one GPU and its KV cache, as two tables."""
    yield from output.table(["GiB ON EACH GPU", "LOW", "MID", "HIGH"], list(_ledger(sizing, wide=wide)), _NUMBERS)
    yield ""
    yield from output.table(["KV CACHE", "LOW", "MID", "HIGH"], list(_cache(sizing, wide=wide)), _NUMBERS)


def report_lines(result: SizeResult, *, given: AbstractSet[str] = frozenset(), wide: bool = False) -> Iterator[str]:
    """The lines of `table` and of `wide`."""
    sizing = result.sizing
    yield headline(sizing)
    yield f"{shorten(printable(result.source.name), _NAME)}: {subject(sizing)}"
    yield ""
    yield from ledger_lines(sizing, wide=wide)
    yield ""
    yield from output.table(["SETTING", "VALUE", ""], marked_settings(sizing, given))
    if wide:
        yield ""
        yield from _details(result)
    if len(sizing.reasons) > 1:
        yield ""
        yield "Why the ranges:"
        yield from (f"- {printable(reason)}" for reason in sizing.reasons[1:])


def _ledger(sizing: Sizing, *, wide: bool) -> Iterator[list[str]]:
    """Rows of the ledger in the engine's own terms and order, in `wide` with the parts of its figures."""
    ledger, peak = sizing.ledger, sizing.account.activation
    yield _row("total", ledger.total, in_gib)
    yield _row("budget", ledger.budget, in_gib)
    yield _row("weights", ledger.weights, in_gib)
    yield from _parts(weight_parts(sizing)) if wide else ()
    yield _row("activation peak", ledger.activation, in_gib)
    yield from _parts((("forward pass", peak.forward), ("sampler", peak.sampling))) if wide else ()
    yield _row("non-torch", ledger.non_torch, in_gib)
    yield _row("CUDA graphs", ledger.cuda_graphs, in_gib)
    yield _row("KV cache", ledger.kv_cache, in_gib)
    if wide:
        yield _row("beside: driver and NCCL", ledger.outside, in_gib)
        yield _row("beside: uncharged graphs", uncharged_graphs(ledger), in_gib)


def _parts(parts: Iterable[tuple[str, float]]) -> Iterator[list[str]]:
    """Rows of what a figure is made of; they have no range of their own."""
    for name, size in parts:
        yield [f"  {name}", "", in_gib(size), ""]


def _cache(sizing: Sizing, *, wide: bool) -> Iterator[list[str]]:
    kv = sizing.kv
    if wide:
        yield ["bytes a token", "", f"{kv.bytes_per_token:,}", ""]
        yield _row("blocks", kv.blocks, _whole)
    yield _row("tokens", kv.tokens, _whole)
    yield _row("concurrency", kv.concurrency, lambda number: f"{number:,.2f}")
    yield _row("longest context", kv.largest, _whole)


def _row(name: str, figure: Range, text: Callable[[float], str]) -> list[str]:
    return [name, *(text(number) for number in (figure.low, figure.mid, figure.high))]


def _whole(number: float) -> str:
    return f"{int(number):,}"


def _details(result: SizeResult) -> Iterator[str]:
    found = "read from safetensors headers" if result.sizing.model.from_headers else "derived from config.json"
    moved = f", {format_decimal(result.source.transferred)} transferred" if result.source.transferred else ""
    graphs = result.sizing.account.graphs
    yield f"Tensors: {found} ({result.source.kind}{moved})"
    yield f"CUDA graphs: {graphs.piecewise} sizes captured piece by piece, {graphs.full} whole"
