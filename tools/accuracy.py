"""How near the memory plans come to what real start-ups of vLLM reported: `make accuracy`.

    tests/data/vllm-startups/*.jsonl -> our sizing, and llm-d-planner's, of every case -> a table and a summary

Both get the config.json of tests/data/model-configs (names without regard to case) and the settings that the source
states; what it does not state takes the default of that release (ours) or of the tool (llm-d-planner). llm-d-planner
runs in an environment of its own (tools/accuracy_planner.py) and is told the parameter counts that it would ask the Hub
for, which are derived from the same config. A card's memory comes from the catalogue of each tool; with `--with-total`
both are told what CUDA reported, where the source says it. A report and no test.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB
from modelberth.catalog.gpus import find_gpu
from modelberth.catalog.vllm import rules_for
from modelberth.checkpoint.config import parse_config
from modelberth.checkpoint.shape import DTYPE_BYTES, ModelShape
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.model import UNQUANTISED, Model, model_of
from modelberth.sizing.plan import Sizing, size

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "data" / "vllm-startups"
CONFIGS = ROOT / "tests" / "data" / "model-configs"
PLANNER = ROOT / ".venv-accuracy" / "bin" / "python"
PRINTED = 0.005
"""Logs print GiB with two digits."""
UNMODELLED = {
    "pipeline parallelism": r"pipeline[-_ ]parallel|\bPP[2-9]",
    "data parallelism": r"data[-_ ]parallel",
    "LoRA adapters": r"\blora\b",
    "CPU offload": r"cpu[-_ ]offload",
    "speculative decoding": r"speculative|draft",
    "throughput mode, which doubles the batch limits": r"performance[-_]mode[= ]throughput",
}
"""What the sizing does not model, and how a source says it."""
IN_SAMPLE = (
    "These errors are in-sample: the ranges and overheads of our catalogue were calibrated on these very cases, and\n"
    "llm-d-planner's constants on the vLLM 0.19.0 sweep among them. They say nothing about new cases."
)
CARD_SIZES = (("up to 24 GiB", 0, 25), ("up to 48 GiB", 25, 49), ("up to 96 GiB", 49, 97), ("larger", 97, 10_000))


@dataclass
class Result:
    """One case. Figures are `weights` and `kv` in GiB of one GPU, and `tokens` of the whole engine's KV cache.

    Attributes:
        row: as in the file.
        config: the model's config.json.
        sizing: our plan.
        measured: figures of the source; None where it has none.
        planner: those of llm-d-planner and whether the case `starts`, or `error`: why there are none.
    """

    row: dict[str, Any]
    config: Path
    sizing: Sizing
    measured: dict[str, float | None]
    planner: dict[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> dict[str, float]:
        """Our figures."""
        weights, cache = self.sizing.ledger.weights, self.sizing.ledger.kv_cache
        return {"weights": weights.mid / GIB, "kv": cache.mid / GIB, "tokens": self.sizing.kv.tokens.mid}

    @property
    def started(self) -> bool:
        """Whether the source says of no failure."""
        return self.row["measured"]["error"] is None

    @property
    def answered(self) -> bool:
        """Whether llm-d-planner has figures."""
        return "error" not in self.planner

    @property
    def known(self) -> bool:
        """Whether everything that decides the KV cache is stated."""
        names = ("vllm_version", "gpu_memory_utilization", "max_num_batched_tokens", "max_num_seqs")
        return all(self.row[name] is not None for name in names)

    @property
    def inside(self) -> bool | None:
        """Whether the measured KV cache lies in our range; None where none was measured."""
        planned, found = self.sizing.ledger.kv_cache.scaled(1 / GIB), self.measured["kv"]
        return None if found is None else planned.low - PRINTED <= found <= planned.high + PRINTED

    @property
    def dense(self) -> bool:
        """Whether the model is dense and takes text alone."""
        shape = self.sizing.model.shape
        return not (shape.sparse or shape.hybrid or shape.latent or shape.vision)

    @property
    def converted(self) -> bool:
        """Whether the checkpoint is loaded in a type of another width, for which llm-d-planner has no option."""
        own, loaded = parse_model(self.config).shape, self.sizing.model.shape
        return own.precision != loaded.precision or DTYPE_BYTES[own.dtype] != DTYPE_BYTES[loaded.dtype]


def main() -> None:
    """Read the cases, plan them with both tools and print the report."""
    parser = argparse.ArgumentParser(description="Memory plans beside what vLLM reported when it started.")
    parser.add_argument("--quality", default="AB", help="qualities of cases to take (default: AB)")
    parser.add_argument("--cases", nargs="+", type=Path, metavar="FILE", help="other files in the same format")
    parser.add_argument("--configs", nargs="+", type=Path, default=[], metavar="DIR", help="more folders of configs")
    parser.add_argument("--with-total", action="store_true", help="give both tools the card's memory as CUDA reported")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    options = parser.parse_args()
    files = options.cases or sorted(CASES.glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines() if line]
    rows = [row for row in rows if row["quality"] in options.quality]
    results, skipped = planned(rows, options)
    version = ask_planner(results, options.with_total)
    show(results, skipped, version, options)


def planned(rows: Iterable[dict[str, Any]], options: argparse.Namespace) -> tuple[list[Result], list[tuple[str, str]]]:
    """Our plan of every case that can be planned; the others with the reason."""
    results, skipped = [], []
    for row in rows:
        reason = unmodelled(row)
        try:
            if reason is None:
                results.append(plan(row, options))
        except UsageError as error:
            reason = f"{error.what} ({error.why})" if error.why else error.what
        if reason is not None:
            skipped.append((row["id"], reason))
    return results, skipped


def unmodelled(row: dict[str, Any]) -> str | None:
    """What of a case the sizing does not model."""
    text = row["other_args"] or ""
    found = [name for name, expression in UNMODELLED.items() if re.search(expression, text, re.IGNORECASE)]
    return f"not modelled: {', '.join(found)}" if found else None


def plan(row: dict[str, Any], options: argparse.Namespace) -> Result:
    """Our plan of one case.

    Raises:
        UsageError: no config.json of the model, an unknown card, a setting that cannot be taken.
    """
    gpu, config = find_gpu(row["gpu"].split("(")[0].strip()), config_path(row["model"], options.configs)
    model = parse_model(config)
    flags = flags_of(row, model.shape)
    if options.with_total and row["gpu_total_mem_gib"]:
        flags = replace(flags, gpu_total=round(row["gpu_total_mem_gib"] * GIB))
    sizing = size(model, gpu, flags)
    said = row["measured"]
    measured = {"weights": said["weights_gib"], "kv": said["kv_gib"], "tokens": said["kv_tokens"]}
    if measured["kv"] is None and measured["tokens"] and row["arch_kind"] == "dense":
        measured["kv"] = measured["tokens"] * sizing.kv.bytes_per_token / GIB
    return Result(row, config, sizing, measured)


def config_path(model: str, more: Sequence[Path]) -> Path:
    """The config.json of a model by the last part of its name.

    Raises:
        UsageError: there is none.
    """
    name = model.rpartition("/")[2].casefold()
    found = [path for folder in (CONFIGS, *more) for path in folder.glob("*.json") if path.stem.casefold() == name]
    if not found:
        raise UsageError(f"no config.json of {model} is at hand")
    return found[0]


@cache
def parse_model(path: Path) -> Model:
    """The model that a config.json describes, with the quantisation file beside it if it has one."""
    quantization = path.parent / "hf_quant_config" / path.name
    return model_of(parse_config(path.read_bytes(), quantization.read_bytes() if quantization.exists() else None))


def flags_of(row: dict[str, Any], shape: ModelShape) -> EngineFlags:
    """The engine's settings as far as the source states them."""
    text = row["other_args"] or ""
    offline = row.get("entrypoint") == "offline" or "LLM class" in (row["notes"] or "")
    named = re.search(r"--quantization[= ]+(\S+)", text)
    quantization = named[1] if named else row["quantization"]
    loads = quantization in {"fp8", "bitsandbytes"} and shape.precision in UNQUANTISED
    return EngineFlags(
        vllm=release(row["vllm_version"]),
        entrypoint="offline" if offline else "server",
        tensor_parallel=row["tensor_parallel_size"] or 1,
        max_model_len=row["max_model_len"],
        gpu_memory_utilization=row["gpu_memory_utilization"],
        max_num_batched_tokens=row["max_num_batched_tokens"],
        max_num_seqs=row["max_num_seqs"],
        kv_cache_dtype=row["kv_cache_dtype"] or "auto",
        dtype=row["dtype"] if row["dtype"] in {"bfloat16", "float16", "float32"} else "auto",
        enforce_eager=bool(row["enforce_eager"]),
        expert_parallel=re.search(r"expert[-_ ]parallel", text, re.IGNORECASE) is not None,
        block_size=block_size(row),
        quantization=quantization if loads else None,
    )


def block_size(row: dict[str, Any]) -> int | None:
    """Tokens of a KV block, where the arguments name them."""
    found = re.search(r"block[-_]size[= ]+(\d+)", row["other_args"] or "")
    return int(found[1]) if found else None


def release(text: str | None) -> str | None:
    """The vLLM version in what a source says of it; None where it says none.

    Raises:
        UsageError: a version that the catalogue does not know.
    """
    found = re.search(r"\d+\.\d+\.\d+[\w.+]*", text or "")
    return rules_for(found[0]).version if found else None


def ask_planner(results: Sequence[Result], with_total: bool) -> str | None:
    """Let llm-d-planner plan the same cases; its version, or None where it is not installed."""
    if not PLANNER.exists():
        for result in results:
            result.planner = {"error": "not installed"}
        return None
    requests = [json.dumps(question(result, with_total)) for result in results]
    helper = Path(__file__).with_name("accuracy_planner.py")
    done = subprocess.run([PLANNER, helper], input="\n".join(requests), stdout=subprocess.PIPE, text=True, check=True)
    first, *answers = (json.loads(line) for line in done.stdout.splitlines())
    for result, answer in zip(results, answers, strict=True):
        result.planner = answer
    return str(first["version"])


def question(result: Result, with_total: bool) -> dict[str, Any]:
    """What llm-d-planner is asked about a case."""
    row, gpu = result.row, result.sizing.gpu
    names = (gpu.product, gpu.name, *gpu.aliases)
    return {
        "config": str(result.config),
        "parameters": parameters(parse_model(result.config)),
        "gpu": [name for name in names if find_gpu(name) is gpu],
        "nominal_gib": -(-round(gpu.cuda_gib[2]) // 8) * 8,  # as a card is sold: the next multiple of 8
        "total_gib": row["gpu_total_mem_gib"] if with_total else None,
        "tensor_parallel": row["tensor_parallel_size"] or 1,
        "utilization": row["gpu_memory_utilization"],
        "max_model_len": row["max_model_len"],
        "block_size": block_size(row),
    }


def parameters(model: Model) -> Counter[str]:
    """Elements of the checkpoint's tensors by dtype, as the Hub counts them."""
    counts: Counter[str] = Counter()
    for group in model.groups:
        counts[group.dtype] += group.elements * group.layers * group.experts
    return counts


def show(
    results: Sequence[Result], skipped: Sequence[tuple[str, str]], version: str | None, options: argparse.Namespace
) -> None:
    """Print the cases, then what they amount to."""
    planner = f"llm-d-planner {version}" if version else "llm-d-planner (not installed)"
    total = "what CUDA reported where stated, else each tool's catalogue" if options.with_total else "as catalogued"
    print(f"{len(results)} cases, {len(skipped)} skipped; memory of a card: {total}; GiB of one GPU\n")
    head = ("case", "card", "vLLM", "TP", "weights", "ours", "planner", "KV", "ours [low, high]", "planner",
            "tokens", "ours", "planner", "started", "ours", "planner")  # fmt: skip
    table(head, [case_line(result) for result in results], options.markdown)
    print(f"\n* outside our range; ~ from the tokens that the log prints; {planner} was told our parameter counts")
    print()
    table(("", "ours", "ours, cases of both", planner), summary(results), options.markdown)
    notes(results, skipped, own=not options.cases)


def case_line(result: Result) -> tuple[str, ...]:
    """One case of the table."""
    row, sizing, measured, ours, planner = result.row, result.sizing, result.measured, result.ours, result.planner
    cache = sizing.ledger.kv_cache.scaled(1 / GIB)
    computed = "~" if measured["kv"] is not None and row["measured"]["kv_gib"] is None else ""
    outside = "*" if result.inside is False else ""
    return (
        row["id"][:40], sizing.gpu.name, release(row["vllm_version"]) or "?", str(sizing.engine.tensor_parallel),
        *(number(figures.get("weights")) for figures in (measured, ours, planner)), number(measured["kv"]) + computed,
        f"{cache.mid:.2f} [{cache.low:.2f}, {cache.high:.2f}]{outside}", number(planner.get("kv")),
        *(number(figures.get("tokens"), 0) for figures in (measured, ours, planner)),
        "yes" if result.started else "no", sizing.verdict,
        "-" if not result.answered else "fits" if planner["starts"] else "no",
    )  # fmt: skip


def number(value: float | None, places: int = 2) -> str:
    """GiB, or tokens without places; a dash where there is none."""
    return "-" if value is None else f"{value:,.{places}f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]], markdown: bool) -> None:
    """Print rows in columns."""
    if markdown:
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for line in lines:
            print("| " + " | ".join(line) + " |")
        return
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def summary(results: Sequence[Result]) -> list[tuple[str, str, str, str]]:
    """The errors of both tools, by what is known of the cases."""
    parts: tuple[tuple[str, str, Callable[[Result], bool]], ...] = (
        ("weights: error, median / worst", "weights", lambda each: bool(each.row)),
        ("  dense text models", "weights", lambda each: each.dense),
        ("  checkpoint loaded as it is", "weights", lambda each: not each.converted),
        ("KV GiB: error, median / worst", "kv", lambda each: bool(each.row)),
        ("  version, share, batch limits known", "kv", lambda each: each.known),
        ("  one of them not stated", "kv", lambda each: not each.known),
        ("  checkpoint loaded as it is", "kv", lambda each: not each.converted),
        ("KV tokens: error, one GPU", "tokens", lambda each: each.sizing.engine.tensor_parallel == 1),
        ("KV tokens: error, tensor parallel", "tokens", lambda each: each.sizing.engine.tensor_parallel > 1),
    )
    lines = []
    for title, figure, chosen in parts:
        cases = [each for each in results if chosen(each)]
        both = [each for each in cases if each.answered]
        ours = [errors((each.ours[figure], each.measured[figure]) for each in some) for some in (cases, both)]
        theirs = errors((each.planner.get(figure), each.measured[figure]) for each in both)
        lines.append((title, ours[0], ours[1], theirs))
    both = [each for each in results if each.answered]
    right = [ratio(each.sizing.starts == each.started for each in some) for some in (results, both)]
    inside = [ratio(each.inside for each in some) for some in (results, both)]
    lines.append(("measured KV inside [low, high]", inside[0], inside[1], "gives no range"))
    lines.append(("verdict right", right[0], right[1], ratio(each.planner["starts"] == each.started for each in both)))
    return lines


def errors(pairs: Iterable[tuple[float | None, float | None]]) -> str:
    """Median and worst of the errors of planned against measured, without their sign, and how many they are."""
    found = [
        abs(plan / measured - 1)
        for plan, measured in pairs
        if plan is not None and measured is not None and measured > 0
    ]
    return f"{statistics.median(found):.2%} / {max(found):.1%} (n={len(found)})" if found else "-"


def ratio(answers: Iterable[bool | None]) -> str:
    """How many of those that can be judged are so."""
    judged = [answer for answer in answers if answer is not None]
    return f"{sum(judged)} of {len(judged)}"


def notes(results: Sequence[Result], skipped: Sequence[tuple[str, str]], own: bool) -> None:
    """Print what the figures rest on, and every case that is not as it should be."""
    print("\nhalf-width of our KV range, GiB: median / largest")
    for title, least, most in CARD_SIZES:
        caches = [each.sizing.ledger.kv_cache for each in results if least <= each.sizing.gpu.cuda_gib[1] < most]
        found = [(cache.high - cache.low) / 2 / GIB for cache in caches if cache.mid > 0]
        if found:
            print(f"  {title:13} {statistics.median(found):.2f} / {max(found):.2f}  (n={len(found)})")
    converted = ((each.row["id"], "") for each in results if each.converted)
    listing("loaded in another type, for which llm-d-planner has no option", converted)
    outside = [each for each in results if each.inside is False]
    distances = (f"{each.ours['kv'] - (each.measured['kv'] or 0):+.2f} GiB" for each in outside)
    listing("measured KV outside our range", zip((each.row["id"] for each in outside), distances, strict=True))
    wrong = [each for each in results if each.sizing.starts != each.started]
    verdicts = (f"{each.sizing.verdict}; source: {each.row['measured']['error'] or 'started'}"[:140] for each in wrong)
    listing("our verdict wrong", zip((each.row["id"] for each in wrong), verdicts, strict=True))
    refused = ((each.row["id"], each.planner["error"]) for each in results if not each.answered)
    listing("no figures of llm-d-planner", refused)
    listing("skipped", skipped)
    print("\n" + (IN_SAMPLE if own else "Whether these cases had a part in making either tool is not known here."))


def listing(title: str, items: Iterable[tuple[str, str]]) -> None:
    """Print named things, each on its line."""
    lines = list(items)
    print(f"\n{title}: {len(lines) or 'none'}")
    for name, text in lines:
        print(f"  {name}: {text}" if text else f"  {name}")


if __name__ == "__main__":
    main()
