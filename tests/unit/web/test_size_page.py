"""The page of `berth size --html`: alone in the world, closed to what names contain, and true to the document."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from modelberth.catalog.gpus import find_gpu
from modelberth.checkpoint.config import parse_config
from modelberth.flows.memory_bar import memory_bar
from modelberth.flows.size_report import size_document
from modelberth.flows.size_words import VERDICTS
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.model import model_of
from modelberth.sizing.plan import size
from modelberth.web.memory_svg import description
from modelberth.web.size_page import size_page
from modelberth.web.size_style import STYLE

VOID = {"meta", "link", "br", "img", "input", "hr", "base"}
HOSTILE = (
    '</title></h2><script>alert(1)</script><img src="http://evil.example/x" onerror=alert(2)>&"\'\x1b[31m\u202e]]>'
)
CASES = (
    ("fits", "Llama-3.1-8B-Instruct", "L4", EngineFlags(max_model_len=8192)),
    ("weights-do-not-fit", "Qwen3-32B", "L4", EngineFlags()),
    ("start-check-fails", "Qwen3-8B", "L4", EngineFlags(gpu_memory_utilization=0.999, max_model_len=4096)),
    ("unsupported", "Qwen3-8B", "L4", EngineFlags(tensor_parallel=3)),
)


class Node:
    """An element of a parsed page."""

    def __init__(self, tag, attributes, parent=None):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children, self.texts = [], []

    def all(self, *tags):
        """Elements below with one of the tags, in order."""
        for child in self.children:
            if child.tag in tags:
                yield child
            yield from child.all(*tags)

    def below(self):
        for child in self.children:
            yield child
            yield from child.below()

    @property
    def text(self):
        return "".join(part if isinstance(part, str) else part.text for part in self.texts)


class Page(HTMLParser):
    """A page as a tree; an element that is not closed is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.root = self.at = Node("", {})
        self.feed(text)
        self.close()
        assert self.at is self.root

    def handle_starttag(self, tag, attrs):
        node = Node(tag, dict(attrs), self.at)
        assert len(node.attributes) == len(attrs)
        self.at.children.append(node)
        self.at.texts.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag):
        assert self.at.tag == tag
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.texts.append(data)


@pytest.fixture(scope="module")
def planned(data_folder):
    def plan(name, gpu, flags):
        model = model_of(parse_config((data_folder / "model-configs" / f"{name}.json").read_bytes()))
        return size(model, find_gpu(gpu), flags)

    return plan


@pytest.fixture(scope="module")
def sizings(planned):
    return [(f"service-{verdict}", planned(*case)) for verdict, *case in CASES]


@pytest.fixture(scope="module")
def text(sizings):
    return size_page(sizings, "Plan of harbor", "kserve 0.17")


@pytest.fixture(scope="module")
def page(text):
    return Page(text).root


# --- alone in the world ------------------------------------------------------------------------------------


def test_nothing_is_fetched_and_nothing_runs(text, page):
    assert not re.search(r"https?://|//[a-z]", text.replace("http://www.w3.org/2000/svg", ""), re.IGNORECASE)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not list(page.all("script", "link", "iframe", "object", "embed", "img", "form", "base", "a"))
    for node in page.below():
        assert not {name for name in node.attributes if name.startswith("on") or name in {"style", "src", "href"}}


def test_the_policy_allows_the_style_of_the_page_and_nothing_else(page):
    (policy,) = (
        node.attributes["content"]
        for node in page.all("meta")
        if node.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (style,) = page.all("style")
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert style.text == STYLE
    assert rules == {
        "default-src": "'none'", "style-src": f"'sha256-{digest}'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    order = [node.tag for node in next(page.all("head")).children]
    assert order.index("style") > order.index("meta")


def test_the_document(text, page):
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert next(page.all("title")).text == "Plan of harbor"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [
        m.attributes for m in page.all("meta")
    ]
    assert "prefers-color-scheme: dark" in STYLE
    assert "@media (max-width" in STYLE
    headings = [node.tag for node in page.all("h1", "h2", "h3", "h4")]
    assert headings[:2] == ["h1", "h2"]
    assert headings.count("h1") == 1


def test_every_id_is_unique_and_every_reference_leads_somewhere(text, page):
    ids = [node.attributes["id"] for node in page.below() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", text))
    for node in page.below():
        used |= set(node.attributes.get("aria-labelledby", "").split())
    assert used <= set(ids)


@pytest.mark.parametrize("where", ["name", "title", "details"])
def test_a_hostile_name_is_only_text(sizings, where):
    sizing = sizings[0][1]
    parts = {"name": "model", "title": "title", "details": "details"} | {where: HOSTILE}
    text = size_page([(parts["name"], sizing)], parts["title"], parts["details"])
    root = Page(text).root
    assert not list(root.all("script", "img"))
    assert "\x1b" not in text
    assert "\u202e" not in text
    shown = {"name": "h2", "title": "h1", "details": "p"}[where]
    assert next(root.all(shown)).text == HOSTILE.replace("\x1b[31m", "").replace("\u202e", "")


def test_a_hostile_config_is_only_text(data_folder):
    config = (data_folder / "model-configs" / "Qwen3-8B.json").read_text()
    evil = config.replace("Qwen3ForCausalLM", "<script>alert(1)</script>").replace('"qwen3"', '"<img src=x>"')
    sizing = size(model_of(parse_config(evil.encode())), find_gpu("L4"), EngineFlags(max_model_len=4096))
    text = size_page([("model", sizing)], "title")
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


# --- for every reader --------------------------------------------------------------------------------------


def test_every_drawing_has_a_text_alternative(page, sizings):
    svgs = list(page.all("svg"))
    for svg in svgs:
        title, desc = (next(svg.all(tag)).text for tag in ("title", "desc"))
        assert title
        assert desc
    bars = [svg for svg in svgs if svg.attributes.get("role") == "img"]
    assert len(bars) == len(sizings)
    for svg, (_, sizing) in zip(bars, sizings, strict=True):
        title, desc = next(svg.all("title")), next(svg.all("desc"))
        assert svg.attributes["aria-labelledby"].split() == [title.attributes["id"], desc.attributes["id"]]
        assert desc.text == description(memory_bar(sizing.ledger))
        assert VERDICTS[sizing.verdict] in title.text
    assert all(svg.attributes.get("aria-hidden") == "true" for svg in svgs if svg not in bars)


def test_segments_differ_by_pattern_and_fill_the_width(page, sizings):
    bars = [svg for svg in page.all("svg") if svg.attributes.get("role") == "img"]
    for svg, (_, sizing) in zip(bars, sizings, strict=True):
        bar = memory_bar(sizing.ledger)
        rects = [node for node in svg.all("rect") if node.attributes.get("class", "").startswith("segment")]
        assert [node.attributes["class"] for node in rects] == [f"segment s-{each.key}" for each in bar.segments]
        assert len({node.attributes["fill"] for node in rects}) == len(rects)
        widths = [float(node.attributes["width"].rstrip("%")) for node in rects]
        assert sum(widths) == pytest.approx(100, abs=0.01)
        for width, segment in zip(widths, bar.segments, strict=True):
            assert width == pytest.approx(100 * segment.size.mid / bar.end, abs=0.001)
        inks = {}
        for pattern in svg.all("pattern"):
            inks[pattern.attributes["id"]] = tuple(path.attributes["d"] for path in pattern.all("path"))
        drawn = [ink for ink in inks.values() if ink]
        assert len(drawn) == len(set(drawn))
        assert bool([node for node in svg.all("rect") if node.attributes.get("class") == "over"]) == bool(bar.over_card)


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme):
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light if scheme == "light" else dark.split("* {")[0]))
    for ground in ("page", "card"):
        for name in ("text", "soft", "fits", "tight", "no"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("weights", "activation", "nontorch", "graphs", "cache", "outside", "uncharged", "over"):
        assert contrast(colours[name], colours["card"]) >= 3, name


# --- true to the document ----------------------------------------------------------------------------------


def cells(section, field):
    (row,) = (row for row in section.all("tr") if row.attributes.get("data-field") == field)
    return [float(cell.text.replace(",", "")) for cell in row.all("td")]


def test_the_tables_have_the_figures_of_the_document(page, sizings):
    sections = list(page.all("section"))
    assert len(sections) == len(sizings)
    for section, (name, sizing) in zip(sections, sizings, strict=True):
        document = size_document(sizing)
        assert next(section.all("h2")).text == name
        for field, figures in document["perGpuGiB"].items():
            assert cells(section, field) == [round(figures[key], 2) for key in ("low", "mid", "high")]
        for field in ("blocks", "tokens", "maxConcurrency"):
            assert cells(section, field) == [document["kvCache"][field][key] for key in ("low", "mid", "high")]
        assert cells(section, "largest") == list(document["maxModelLen"]["largest"].values())
        for table in section.all("table"):
            assert next(table.all("caption")).text
            assert {head.attributes.get("scope") for head in table.all("th")} == {"row", "col"}


def test_verdicts_are_words_and_not_only_colours(page, sizings):
    for section, (verdict, *_), (_, sizing) in zip(page.all("section"), CASES, sizings, strict=True):
        assert sizing.verdict == verdict
        (line,) = (node for node in section.all("p") if node.attributes.get("class", "").startswith("verdict"))
        assert VERDICTS[verdict] in line.text
        assert sizing.reasons[0] in line.text
        assert [item.text for item in section.all("li")] == list(sizing.reasons[1:])


def test_what_is_too_much_is_said(page):
    captions = {s.children[0].text: next(s.all("figcaption")).text for s in page.all("section")}
    assert "GiB over the budget" in captions["service-weights-do-not-fit"]
    assert "GiB beyond the card" in captions["service-start-check-fails"]
    assert "beyond" not in captions["service-fits"]


def test_a_page_of_nothing():
    root = Page(size_page([], "Plan of nothing")).root
    assert not list(root.all("section"))


def test_the_same_plan_gives_the_same_page(sizings, text):
    assert size_page(sizings, "Plan of harbor", "kserve 0.17") == text
