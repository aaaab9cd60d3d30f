"""The memory plan of one or more services as one HTML page that needs nothing but itself.

No script, no request to anywhere: the policy in its head allows the style in its head and nothing else. Every element
is built as a tree and written by the library, so that no name of a model or a file can become markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from modelberth.base.text import printable, shorten
from modelberth.flows.memory_bar import memory_bar
from modelberth.flows.size_report import sizing_fields
from modelberth.flows.size_words import VERDICTS, in_gib, settings, subject, terms
from modelberth.sizing.plan import Sizing
from modelberth.web.memory_svg import bar_svg, excess, swatch_svg
from modelberth.web.size_style import STYLE

_LONGEST_TEXT = 2000
_LEDGER = (
    ("total", "total", ""),
    ("budget", "budget", ""),
    ("weights", "weights", "weights"),
    ("activation", "activation peak", "activation"),
    ("nonTorch", "non-torch", "nonTorch"),
    ("cudaGraphs", "CUDA graphs", "cudaGraphs"),
    ("kvCache", "KV cache", "kvCache"),
)
"""Field of the document, name for people, and kind of memory in the drawing."""
_HEAD = ("low", "mid", "high")
_MARKS = {"fits": "✓", "fits-tight": "!"}
Figures = Mapping[str, float]


def size_page(sizings: Sequence[tuple[str, Sizing]], title: str, details: str = "") -> str:
    """The page.

    Args:
        sizings: the name of each service or model, and its plan.
        title: of the page.
        details: one line below it: platform, version.
    """
    html = Element("html", lang="en")
    html.append(_head(title))
    body = SubElement(html, "body")
    header = SubElement(body, "header")
    _text(header, "h1", title)
    if details:
        _text(header, "p", details)
    main = SubElement(body, "main")
    for number, (name, sizing) in enumerate(sizings):
        main.append(_section(name, sizing, f"g{number}"))
    _text(SubElement(body, "footer"), "p", "Memory is in GiB (2^30 bytes), as vLLM logs it; low, expected and high.")
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _head(title: str) -> Element:
    head = Element("head")
    SubElement(head, "meta", charset="utf-8")
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "meta", name="color-scheme", content="light dark")
    _text(head, "title", title)
    SubElement(head, "style").text = STYLE
    return head


def _section(name: str, sizing: Sizing, identity: str) -> Element:
    section = Element("section", {"aria-labelledby": f"{identity}-name"})
    _text(section, "h2", name, id=f"{identity}-name")
    _text(section, "p", subject(sizing), **{"class": "subject"})
    section.append(_verdict(sizing))
    section.append(_drawing(sizing, identity))
    fields = sizing_fields(sizing)
    tables = SubElement(section, "div", {"class": "tables"})
    tables.append(_ledger(fields["perGpuGiB"], identity))
    tables.append(_cache(fields["kvCache"], fields["maxModelLen"]["largest"]))
    if len(sizing.reasons) > 1:
        _text(section, "h3", "Why the ranges")
        reasons = SubElement(section, "ul")
        for reason in sizing.reasons[1:]:
            _text(reasons, "li", reason)
    section.append(_folded("How each figure comes about", terms(sizing)))
    section.append(_folded("Settings", ((flag, value) for _, flag, value in settings(sizing))))
    return section


def _verdict(sizing: Sizing) -> Element:
    kind = sizing.verdict if sizing.starts else "no"
    line = Element("p", {"class": f"verdict {kind}"})
    _text(SubElement(line, "strong"), "span", f"{_MARKS.get(kind, '✗')} {VERDICTS[sizing.verdict]}")
    _text(line, "span", f"{sizing.reasons[0]}.")
    return line


def _drawing(sizing: Sizing, identity: str) -> Element:
    bar = memory_bar(sizing.ledger)
    figure = Element("figure")
    figure.append(bar_svg(bar, identity, f"Memory of one {sizing.gpu.product}: {VERDICTS[sizing.verdict]}"))
    beside = [segment for segment in bar.segments if not segment.charged]
    caption = SubElement(figure, "figcaption")
    _text(caption, "span", f"One {sizing.gpu.product} as expected.")
    if sizing.ledger.kv_cache.mid > 0 and not sizing.ledger.kv_cache.is_exact:
        _text(caption, "span", "The bracket is where the KV cache may begin.")
    if excess(bar):
        _text(caption, "span", excess(bar), **{"class": "excess"})
    if beside:
        _text(caption, "span", "Beside the budget:")
    for segment in beside:
        entry = SubElement(caption, "span", {"class": "entry"})
        entry.append(swatch_svg(segment.key, segment.name, f"{identity}-beside-{segment.key}"))
        _text(entry, "span", f"{segment.name} {in_gib(segment.size.mid)} GiB")
    return figure


def _ledger(memory: Mapping[str, Figures], identity: str) -> Element:
    table = _table("GiB on each GPU")
    body = SubElement(table, "tbody")
    for field, name, key in _LEDGER:
        row = SubElement(body, "tr", {"data-field": field})
        head = SubElement(row, "th", scope="row")
        if key:
            head.append(swatch_svg(key, name, f"{identity}-legend-{key}"))
        _text(head, "span", name, **({} if key else {"class": "plain"}))
        _cells(row, memory[field], ",.2f")
    return table


def _cache(cache: Mapping[str, Figures], largest: Figures) -> Element:
    table = _table("KV cache")
    body = SubElement(table, "tbody")
    rows: tuple[tuple[str, str, Figures, str], ...] = (
        ("blocks", "blocks", cache["blocks"], ",.0f"),
        ("tokens", "tokens", cache["tokens"], ",.0f"),
        ("maxConcurrency", "requests at once", cache["maxConcurrency"], ",.2f"),
        ("largest", "longest context", largest, ",.0f"),
    )
    for field, name, figures, form in rows:
        row = SubElement(body, "tr", {"data-field": field})
        _text(row, "th", name, scope="row")
        _cells(row, figures, form)
    return table


def _table(caption: str) -> Element:
    table = Element("table")
    _text(table, "caption", caption)
    row = SubElement(SubElement(table, "thead"), "tr")
    SubElement(row, "td")
    for name in _HEAD:
        _text(row, "th", name, scope="col")
    return table


def _cells(row: Element, figures: Figures, form: str) -> None:
    for name in _HEAD:
        _text(row, "td", format(round(figures[name], 2) + 0.0, form), **({"class": "mid"} if name == "mid" else {}))


def _folded(title: str, pairs: Iterable[tuple[str, str]]) -> Element:
    """A list of names and texts that unfolds."""
    details = Element("details")
    _text(details, "summary", title)
    items = SubElement(details, "dl")
    for name, text in pairs:
        _text(items, "dt", name)
        _text(items, "dd", text)
    return details


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    """A child with text. Control characters go, whoever wrote them; markup is escaped when the tree is written."""
    child = SubElement(parent, tag, attributes)
    child.text = shorten(printable(text), _LONGEST_TEXT)
    return child
