"""The report of `berth size` as text: verdict, ledger, settings, the drawing and the explanations."""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.base.units import GIB
from modelberth.catalog.gpus import find_gpu
from modelberth.checkpoint.config import parse_config
from modelberth.cli.size_explain import FILLS, drawing, explanation
from modelberth.cli.size_report import report_lines, show
from modelberth.flows.memory_bar import MemoryBar, Segment, memory_bar
from modelberth.flows.model_source import ModelSource
from modelberth.flows.size import SizeResult
from modelberth.flows.size_report import size_document
from modelberth.flows.size_words import VERDICTS, in_gib, marked_settings, terms
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.model import model_of
from modelberth.sizing.plan import size
from modelberth.sizing.ranges import Range, exact

CASES = {
    "fits": ("Llama-3.1-8B-Instruct", "L4", EngineFlags(max_model_len=8192)),
    "weights-do-not-fit": ("Qwen3-32B", "L4", EngineFlags()),
    "context-too-long": ("Qwen3-8B", "L4", EngineFlags(vllm="0.10.2")),
    "start-check-fails": ("Qwen3-8B", "L4", EngineFlags(gpu_memory_utilization=0.999, max_model_len=4096)),
    "unsupported": ("Qwen3-8B", "L4", EngineFlags(tensor_parallel=3)),
}


@pytest.fixture(scope="module")
def planned(data_folder):
    """The result for a config of the test data on a card."""

    def plan(name, gpu, flags, shown=None):
        model = model_of(parse_config((data_folder / "model-configs" / f"{name}.json").read_bytes()))
        return SizeResult(ModelSource(shown or name, "config", model, 0, None), size(model, find_gpu(gpu), flags))

    return plan


def rows(lines, head):
    """Cells of the table below a head, by the name in their first column."""
    after = itertools.dropwhile(lambda line: not line.startswith(head), lines)
    table = list(itertools.takewhile(bool, after))[1:]
    return {cells[0]: cells[1:] for cells in (re.split(r"\s{2,}", line.strip()) for line in table)}


def ledger_rows(lines):
    return rows(lines, "GiB ON EACH GPU")


# --- table and wide ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", CASES)
def test_the_first_line_is_the_verdict_with_its_reason(planned, verdict):
    result = planned(*CASES[verdict])
    assert result.sizing.verdict == verdict
    assert next(report_lines(result)) == f"{VERDICTS[verdict]}: {result.sizing.reasons[0]}."


def test_every_verdict_has_words_of_its_own():
    assert len(set(VERDICTS.values())) == 6


@pytest.mark.parametrize("verdict", CASES)
def test_the_ledger_has_the_figures_of_the_document(planned, verdict):
    result = planned(*CASES[verdict])
    memory = size_document(result.sizing)["perGpuGiB"]
    shown = ledger_rows(report_lines(result))
    names = {
        "total": "total", "budget": "budget", "weights": "weights", "activation peak": "activation",
        "non-torch": "nonTorch", "CUDA graphs": "cudaGraphs", "KV cache": "kvCache",
    }  # fmt: skip
    assert list(shown) == list(names)
    for name, field in names.items():
        figures = [float(cell.replace(",", "")) for cell in shown[name]]
        assert figures == pytest.approx([memory[field][key] for key in ("low", "mid", "high")], abs=0.0051)


def test_the_cache_has_the_figures_of_the_document(planned):
    result = planned(*CASES["fits"])
    document = size_document(result.sizing)
    assert rows(report_lines(result), "KV CACHE") == {
        "tokens": [f"{number:,}" for number in document["kvCache"]["tokens"].values()],
        "concurrency": [f"{number:.2f}" for number in document["kvCache"]["maxConcurrency"].values()],
        "longest context": [f"{number:,}" for number in document["maxModelLen"]["largest"].values()],
    }


def test_what_was_not_given_is_marked(planned):
    result = planned(*CASES["fits"])
    marks = {flag: (value, mark) for flag, value, mark in marked_settings(result.sizing, {"max_model_len", "vllm"})}
    assert marks["max-model-len"] == ("8,192", "")
    assert marks["vllm"] == (result.sizing.engine.rules.version, "")
    assert marks["max-num-seqs"] == ("256", "default")
    assert {mark for flag, (_, mark) in marks.items() if flag not in {"max-model-len", "vllm"}} == {"default"}
    lines = list(report_lines(result, given={"max_model_len"}))
    assert "max-model-len             8,192" in lines
    assert any(re.fullmatch(r"block-size +16 +default", line) for line in lines)


def test_reasons_stand_one_a_line(planned):
    result = planned(*CASES["fits"])
    lines = list(report_lines(result))
    start = lines.index("Why the ranges:")
    assert lines[start + 1 :] == [f"- {reason}" for reason in result.sizing.reasons[1:]]


def test_wide_adds_the_parts(planned):
    result = planned("gpt-oss-120b", "H100", EngineFlags(max_model_len=8192))
    lines = list(report_lines(result, wide=True))
    shown = ledger_rows(lines)
    parts = result.sizing.account.weights
    assert shown["experts"] == [in_gib(parts.experts)]
    names = ("layers", "experts", "embeddings", "tower", "extras", "rounding")
    assert math.fsum(float(shown[name][0]) for name in names) == pytest.approx(float(shown["weights"][1]), abs=0.031)
    assert shown["sampler"] == [in_gib(result.sizing.account.activation.sampling)]
    graphs = result.sizing.account.graphs
    assert f"CUDA graphs: {graphs.piecewise} sizes captured piece by piece, {graphs.full} whole" in lines
    assert "Tensors: derived from config.json (config)" in lines
    assert set(ledger_rows(report_lines(result))) < set(shown)


def test_no_line_is_wider_than_a_terminal_but_names_and_reasons(planned):
    lines = list(report_lines(planned(*CASES["weights-do-not-fit"]), wide=True))
    start = lines.index("Why the ranges:")
    assert max(len(line) for line in lines[3:start]) <= 80


def test_a_name_cannot_command_the_terminal(planned):
    result = planned("Qwen3-8B", "L4", EngineFlags(), shown="\x1b]0;owned\x07evil\u202e\nmodel" + "x" * 500)
    text = "\n".join(report_lines(result))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "evil model" in text
    assert len(text.splitlines()[1]) < 250


# --- the forms ---------------------------------------------------------------------------------------------


def test_every_form(planned, capsys):
    result = planned(*CASES["context-too-long"])
    said = {}
    for form in ("table", "wide", "json", "yaml", "name"):
        show(result, form)
        said[form] = capsys.readouterr().out
    assert said["name"] == "context-too-long\n"
    assert json.loads(said["json"]) == size_document(result.sizing)
    assert said["yaml"].startswith("schemaVersion: ")
    assert said["table"].startswith("Context too long: ")
    assert len(said["wide"]) > len(said["table"])


@pytest.mark.parametrize("form", ["json", "yaml", "name"])
def test_a_form_for_programs_explains_nothing(planned, capsys, form):
    result = planned(*CASES["fits"])
    show(result, form)
    plain = capsys.readouterr().out
    show(result, form, explain=True)
    assert capsys.readouterr().out == plain


def test_explain_comes_after_the_report(planned, capsys):
    result = planned(*CASES["fits"])
    show(result, "table")
    plain = capsys.readouterr().out
    show(result, "table", explain=True)
    explained = capsys.readouterr().out
    assert explained.startswith(plain)
    assert "How each figure comes about:" in explained


# --- the drawing -------------------------------------------------------------------------------------------


def bar_line(lines):
    """The line that is all fill characters."""
    (line,) = (line for line in lines if line and set(line) <= set(FILLS.values()))
    return line


def test_every_segment_has_a_character_of_its_own():
    assert len(set(FILLS.values())) == len(FILLS)
    assert all(len(fill) == 1 and fill.isascii() and not fill.isspace() for fill in FILLS.values())


@pytest.mark.parametrize("columns", [40, 80, 100, 140])
@pytest.mark.parametrize("verdict", CASES)
def test_the_bar_is_as_wide_as_the_terminal_and_true_to_scale(planned, verdict, columns):
    bar = memory_bar(planned(*CASES[verdict]).sizing.ledger)
    lines = list(drawing(bar, columns))
    drawn = bar_line(lines)
    assert len(drawn) == columns
    for segment in bar.segments:
        exact_cells = segment.size.mid / bar.end * columns
        assert abs(drawn.count(FILLS[segment.key]) - exact_cells) <= len(bar.segments)
        assert drawn.count(FILLS[segment.key]) >= 1


def test_the_budget_is_marked_where_the_cache_ends(planned):
    bar = memory_bar(planned(*CASES["fits"]).sizing.ledger)
    budget, card, drawn = drawing(bar, 100)
    assert budget.endswith(f"budget {in_gib(bar.budget)} GiB v")
    assert len(budget) - 1 == drawn.rindex(FILLS["kvCache"])
    assert card.endswith(f"card {in_gib(bar.card)} GiB v")
    assert len(card) == 100


def test_what_is_too_much_is_shown(planned):
    bar = memory_bar(planned(*CASES["weights-do-not-fit"]).sizing.ledger)
    budget, card, drawn, over_budget, over_card = drawing(bar, 100)
    assert len(drawn) == len(over_card) == 100
    assert FILLS["kvCache"] not in drawn
    assert over_budget.index("^") == budget.index("v") + (1 if budget.endswith("v") else 0)
    assert over_card.index("^") == card.index("v") + (1 if card.endswith("v") else 0)
    assert f"{in_gib(bar.over_budget)} GiB over the budget" in over_budget
    assert f"{in_gib(bar.over_card)} GiB beyond the card" in over_card
    assert over_card.endswith("^")


def test_a_start_check_that_fails_goes_beyond_the_card(planned):
    bar = memory_bar(planned(*CASES["start-check-fails"]).sizing.ledger)
    assert bar.over_card > 0
    assert bar.over_budget == pytest.approx(0, abs=1)
    assert any("beyond the card" in line for line in drawing(bar, 80))


amounts = st.floats(0.001, 500)


@settings(deadline=None)
@given(st.lists(amounts, min_size=len(FILLS), max_size=len(FILLS)), amounts, amounts, st.integers(40, 200))
def test_any_bar_can_be_drawn(sizes, budget, card, columns):
    segments = tuple(
        Segment(key, key, exact(size * GIB), charged=key not in {"outside", "uncharged", "free"})
        for key, size in zip(FILLS, sizes, strict=True)
    )
    lines = list(drawing(MemoryBar(segments, budget * GIB, card * GIB), columns))
    assert len(bar_line(lines)) == columns
    assert sum(line.count("v") == 1 or "v " in line for line in lines[:2]) == 2


def test_the_row_adds_up(planned):
    for case in CASES.values():
        ledger = planned(*case).sizing.ledger
        bar = memory_bar(ledger)
        starts = list(bar.starts())
        for (one, start), (_, following) in itertools.pairwise(starts):
            assert start + one.size.mid == pytest.approx(following)
        assert bar.end >= ledger.total.mid
        if ledger.kv_cache.mid > 0:
            assert bar.charged == pytest.approx(ledger.budget.mid)
        else:
            assert bar.over_budget == pytest.approx(-ledger.kv_cache.mid)


def test_graphs_stand_where_the_release_counts_them(planned):
    charged = {True: [], False: []}
    for version in ("0.10.2", "0.33.0"):
        ledger = planned("Qwen3-8B", "L4", EngineFlags(vllm=version)).sizing.ledger
        for segment in memory_bar(ledger).segments:
            charged[segment.charged].append((version, segment.key))
    assert ("0.33.0", "cudaGraphs") in charged[True]
    assert ("0.10.2", "uncharged") in charged[False]
    assert ("0.10.2", "cudaGraphs") not in charged[True]
    assert ("0.33.0", "uncharged") not in charged[False]


# --- the terms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", CASES)
def test_the_terms_speak_in_the_numbers_of_the_case(planned, verdict):
    sizing = planned(*CASES[verdict]).sizing
    said = dict(terms(sizing))
    ledger = sizing.ledger
    assert (
        f"x gpu-memory-utilization {sizing.engine.gpu_memory_utilization:g} = {in_gib(ledger.budget.mid)} GiB"
        in said["budget"]
    )
    assert said["weights"].endswith(f"= {in_gib(ledger.weights.mid)} GiB")
    assert said["activation peak"].endswith(f"{in_gib(ledger.activation.mid)} GiB")
    assert said["KV cache"].endswith(f"= {in_gib(ledger.kv_cache.mid)} GiB")
    assert f"{sizing.engine.max_num_batched_tokens:,} tokens" in said["activation peak"]


def test_eager_engines_have_no_graphs(planned):
    sizing = planned("Qwen3-8B", "L4", EngineFlags(enforce_eager=True, max_model_len=4096)).sizing
    assert dict(terms(sizing))["CUDA graphs"] == "none: the engine is eager"


@pytest.mark.parametrize("columns", [1, 80, 140])
def test_the_explanation_stays_in_the_terminal(planned, columns):
    for case in CASES.values():
        lines = list(explanation(planned(*case).sizing, columns))
        assert max(map(len, lines)) <= max(columns, 80)


@pytest.mark.parametrize(
    ("size_of", "text"), [(0.0, "0.00"), (-1.0, "0.00"), (-GIB, "-1.00"), (1234.5 * GIB, "1,234.50")]
)
def test_gib(size_of, text):
    assert in_gib(size_of) == text


def test_a_range_of_the_cache_is_never_negative_in_the_drawing(planned):
    bar = memory_bar(planned("Qwen2.5-VL-7B-Instruct", "L4", EngineFlags(max_model_len=8192)).sizing.ledger)
    cache = next(segment for segment in bar.segments if segment.key == "kvCache")
    assert isinstance(cache.size, Range)
    assert cache.size.low >= 0
