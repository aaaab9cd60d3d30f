"""The memory of one GPU as an SVG element: a bar in percent, so that it fits any width while its text keeps its size.

Every kind of memory has a colour (by class, so that the page's style decides) and a pattern of its own; what is said
by either is said in the text alternative, too.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from modelberth.flows.memory_bar import MemoryBar, Segment
from modelberth.flows.size_words import in_gib

_TOP, _TALL, _HIGH = 44, 46, 124
_SHOWN_NAMES = 640
"""Width in pixels from which names stand under the segments; the style hides them on narrower screens."""
_LETTER = 7.6
_PATTERNS: dict[str, tuple[str, ...]] = {
    "weights": (),
    "activation": ("M0,8 L8,0", "M-2,2 L2,-2", "M6,10 L10,6"),
    "nonTorch": ("M2,2 h2 v2 h-2 z", "M6,6 h2 v2 h-2 z"),
    "cudaGraphs": ("M0,0 L8,8", "M0,8 L8,0"),
    "kvCache": ("M0,2 H8", "M0,6 H8"),
    "outside": ("M2,0 V8", "M6,0 V8"),
    "uncharged": ("M0,4 H8", "M4,0 V8"),
    "free": (),
    "over": ("M0,0 L8,8", "M-2,6 L2,10", "M6,-2 L10,2"),
}
"""Paths on a tile of 8 pixels."""


def bar_svg(bar: MemoryBar, identity: str, title: str) -> Element:
    """The drawing.

    Args:
        bar: what is drawn.
        identity: prefix of the ids within; unique on the page.
        title: its short text alternative; the long one lists every figure.
    """
    svg = Element("svg", {
        "class": "bar", "role": "img", "width": "100%", "height": str(_HIGH),
        "aria-labelledby": f"{identity}-title {identity}-desc",
    })  # fmt: skip
    SubElement(svg, "title", id=f"{identity}-title").text = title
    SubElement(svg, "desc", id=f"{identity}-desc").text = description(bar)
    _patterns(svg, [segment.key for segment in bar.segments] + ["over"] * bool(bar.over_card), identity)
    for segment, start in bar.starts():
        _segment(svg, segment, start, bar, identity)
    _cache_start(svg, bar)
    if bar.over_card:
        _over(svg, bar, identity)
    _edges(svg, bar)
    return svg


def swatch_svg(key: str, name: str, identity: str) -> Element:
    """A square with the colour and the pattern of one kind of memory, for a legend that says its name beside it."""
    svg = Element("svg", {"class": "swatch", "width": "16", "height": "16", "aria-hidden": "true"})
    SubElement(svg, "title").text = name
    SubElement(svg, "desc").text = f"how {name} is drawn"
    _patterns(svg, [key], identity)
    SubElement(svg, "rect", _fill(key, identity) | {"width": "100%", "height": "100%"})
    return svg


def description(bar: MemoryBar) -> str:
    """The drawing in words."""
    parts = [f"{segment.name} {in_gib(segment.size.mid)} GiB" for segment in bar.segments]
    text = f"From left to right: {', '.join(parts)}. Budget {in_gib(bar.budget)} GiB, card {in_gib(bar.card)} GiB."
    return f"{text} {excess(bar)}".strip()


def excess(bar: MemoryBar) -> str:
    """What is too much, in words; empty when nothing is."""
    parts = [(bar.over_budget, "over the budget"), (bar.over_card, "beyond the card")]
    text = ", ".join(f"{in_gib(size)} GiB {where}" for size, where in parts if size)
    return f"{text}." if text else ""


def _patterns(svg: Element, keys: list[str], identity: str) -> None:
    defs = SubElement(svg, "defs")
    for key in keys:
        tile = SubElement(defs, "pattern", {
            "id": f"{identity}-{key}", "width": "8", "height": "8", "patternUnits": "userSpaceOnUse",
        })  # fmt: skip
        SubElement(tile, "rect", {"class": f"c-{key}", "width": "8", "height": "8"})
        for path in _PATTERNS[key]:
            SubElement(tile, "path", {"class": "ink", "d": path})


def _fill(key: str, identity: str) -> dict[str, str]:
    return {"fill": f"url(#{identity}-{key})", "class": f"segment s-{key}"}


def _segment(svg: Element, segment: Segment, start: float, bar: MemoryBar, identity: str) -> None:
    share = segment.size.mid / bar.end
    place = {"x": _percent(start, bar), "y": str(_TOP), "width": _percent(segment.size.mid, bar), "height": str(_TALL)}
    SubElement(svg, "rect", _fill(segment.key, identity) | place)
    text = segment.name
    if share * _SHOWN_NAMES >= len(text) * _LETTER:
        middle = {"x": _percent(start + segment.size.mid / 2, bar), "class": "name", "text-anchor": "middle"}
        SubElement(svg, "text", middle | {"y": str(_TOP + _TALL + 16)}).text = text
        SubElement(svg, "text", middle | {"y": str(_TOP + _TALL + 31)}).text = f"{in_gib(segment.size.mid)} GiB"


def _cache_start(svg: Element, bar: MemoryBar) -> None:
    """A bracket from where the KV cache begins at its largest to where it begins at its smallest."""
    cache = next((segment for segment in bar.segments if segment.key == "kvCache"), None)
    if cache is None or cache.size.is_exact:
        return
    left, right = _percent(bar.budget - cache.size.high, bar), _percent(bar.budget - cache.size.low, bar)
    middle = _TOP + _TALL // 2
    lines = (
        (left, right, middle, middle),
        (left, left, middle - 7, middle + 7),
        (right, right, middle - 7, middle + 7),
    )
    for style in ("halo", "bracket"):
        for x1, x2, y1, y2 in lines:
            SubElement(svg, "line", {"class": style, "x1": x1, "x2": x2, "y1": str(y1), "y2": str(y2)})


def _over(svg: Element, bar: MemoryBar, identity: str) -> None:
    SubElement(svg, "rect", {
        "fill": f"url(#{identity}-over)", "class": "over", "x": _percent(bar.card, bar), "y": str(_TOP),
        "width": _percent(bar.over_card, bar), "height": str(_TALL),
    })  # fmt: skip


def _edges(svg: Element, bar: MemoryBar) -> None:
    """Both edges; the label of the outer one stands higher, so that no line crosses the other's label."""
    outwards = bar.card < bar.end / 2
    _edge(svg, "budget", bar.budget, 14 if outwards else 32, bar, right=outwards or bar.budget < bar.end / 4)
    _edge(svg, "card", bar.card, 32 if outwards else 14, bar, right=outwards)


def _edge(svg: Element, name: str, size: float, row: int, bar: MemoryBar, *, right: bool) -> None:
    """A line across the bar, with its label in a row of its own above it, to the right or to the left of the line."""
    place = _percent(size, bar)
    SubElement(svg, "line", {
        "class": f"edge {name}", "x1": place, "x2": place, "y1": str(row - 11), "y2": str(_TOP + _TALL + 4),
    })  # fmt: skip
    label = {"x": place, "y": str(row), "text-anchor": "start" if right else "end", "dx": "5" if right else "-5"}
    SubElement(svg, "text", label).text = f"{name} {in_gib(size)} GiB"


def _percent(size: float, bar: MemoryBar) -> str:
    return f"{100 * size / bar.end:.3f}%"
