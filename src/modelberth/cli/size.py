"""`berth size`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from modelberth.base.errors import DoesNotFit, UsageError
from modelberth.cli.options import Decorator, output_option
from modelberth.cli.page_file import check_page, write_page

if TYPE_CHECKING:
    from modelberth.flows.size import SizeRequest, SizeResult

EPILOG = """\b
Examples:
  berth size ./Qwen3-8B --gpu L4                           a folder, with or without weights
  berth size Qwen/Qwen3-8B --gpu L4 --max-model-len 16384  the Hub: config and headers alone
  berth size config.json --gpu H100 --tp 8 --vllm 0.25.1   eight cards, a release of vLLM
  berth size ./Qwen3-8B --gpu L4 --explain                 the card drawn, each figure explained
  berth size ./Qwen3-8B --gpu L4 --html plan.html          a page to send around

\b
Exit codes: 0 it starts, 2 usage or no config.json of a model, 7 a header that lies,
8 it does not start: weights, context, start check, or not for this card or release."""

_DTYPES = ("auto", "bfloat16", "float16", "float32", "half", "float")
_LEAST_MEMORY, _MOST_MEMORY = 1 << 30, 1 << 44
_COUNTS = click.IntRange(1, 10**9)
_CARDS = click.IntRange(1, 4096)
_FIELDS = {
    "tp": "tensor_parallel", "vllm": "vllm", "entrypoint": "entrypoint", "max_model_len": "max_model_len",
    "gpu_memory_utilization": "gpu_memory_utilization", "max_num_batched_tokens": "max_num_batched_tokens",
    "max_num_seqs": "max_num_seqs", "kv_cache_dtype": "kv_cache_dtype", "dtype": "dtype", "block_size": "block_size",
    "enforce_eager": "enforce_eager", "expert_parallel": "expert_parallel", "quantization": "quantization",
    "gpu_memory": "gpu_total",
}  # fmt: skip
"""Options, and the fields of `EngineFlags` that they set."""


def _option(*names: str, **settings: Any) -> Decorator:
    """An option that shows its variable."""
    return click.option(*names, show_envvar=True, **settings)


@click.command(epilog=EPILOG)
@click.argument("model")
@_option("--gpu", metavar="PRODUCT", help="The card: the value of its node label, or a common name such as L4.")
@_option("--tp", "--tensor-parallel-size", type=_CARDS, default=1, metavar="N", help="GPUs that share the model.")
@_option("--max-model-len", type=_COUNTS, metavar="N", help="Longest request, tokens.  [default: the model's own]")
@_option(
    "--gpu-memory-utilization", type=click.FloatRange(0, 1, min_open=True), metavar="F",
    help="Share of the card that the engine may take.  [default: the release's]",
)  # fmt: skip
@_option("--vllm", metavar="VERSION", help="Release of vLLM.  [default: the newest known]")
@_option(
    "--entrypoint", type=click.Choice(("server", "offline")), default="server",
    help="'vllm serve' or the LLM class: their batch limits differ.",
)  # fmt: skip
@_option(
    "--max-num-batched-tokens", type=_COUNTS, metavar="N",
    help="Tokens of one step.  [default: the release's for this card]",
)  # fmt: skip
@_option(
    "--max-num-seqs", type=_COUNTS, metavar="N",
    help="Requests of one step.  [default: the release's for this card]",
)  # fmt: skip
@_option("--kv-cache-dtype", default="auto", metavar="D", help="Type of the KV cache, such as fp8.")
@_option("--dtype", type=click.Choice(_DTYPES), default="auto", help="Type of weights and activations.")
@_option(
    "--quantization", type=click.Choice(("fp8", "bitsandbytes", "w4a16")), metavar="Q",
    help="Quantise an unquantised checkpoint: fp8 and bitsandbytes while it is loaded, w4a16 as it would be published.",
)  # fmt: skip
@_option("--enforce-eager", is_flag=True, help="No CUDA graphs.")
@_option("--expert-parallel", "--enable-expert-parallel", is_flag=True, help="Spread whole experts over the GPUs.")
@_option("--block-size", type=_COUNTS, metavar="N", help="Tokens of a KV block.  [default: the release's]")
@_option("--gpu-memory", metavar="SIZE", help="What CUDA reports in all, such as 22.03GiB, instead of the catalogue's.")
@_option("--gpus", type=_CARDS, metavar="N", help="Cards in the machine; more ranks than that are refused.")
@_option("--explain", is_flag=True, help="Draw one card's memory, and say how each figure comes about.")
@_option(
    "--html", type=click.Path(path_type=Path, dir_okay=False, resolve_path=True), metavar="FILE",
    help="Write the plan as a page of its own, too.",
)  # fmt: skip
@_option(
    "--against", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="LOG",
    help="Compare with what a vLLM log says it took.",
)  # fmt: skip
@output_option()
@click.pass_context
def command(context: click.Context, /, *, model: str, gpu: str | None, form: str, **options: Any) -> int:
    """Plan the memory of MODEL on one kind of GPU, without a GPU and without its weights.

    MODEL is a folder with config.json, a config.json, s3://bucket/prefix/, hf://owner/name or owner/name. What is
    not given takes the default of that vLLM release on that card. Memory is in GiB (2^30 bytes), as vLLM logs it.
    """
    from modelberth.cli.size_report import show
    from modelberth.flows.size import SizeRequest, size_model
    from modelberth.sizing.engine import EngineFlags

    if not gpu:
        raise _no_gpu()
    given = frozenset(field for option, field in _FIELDS.items() if _is_given(context, option))
    values = {field: options[option] for option, field in _FIELDS.items()}
    values["gpu_total"] = _memory(options["gpu_memory"])
    share = options["gpu_memory_utilization"]
    if share is not None and not 0 < share <= 1:  # the range lets NaN through
        raise click.BadParameter(f"{share} is no share of the memory", param_hint="--gpu-memory-utilization")
    page: Path | None = options["html"]
    check_page(page)

    flags, log = EngineFlags(**values), options["against"]
    if log is not None:
        return _against(SizeRequest(model, gpu, flags, options["gpus"]), log, form, page)
    result = size_model(SizeRequest(model, gpu, flags, options["gpus"]))
    if page is not None:
        _page(result, page)
    show(result, form, given=given, explain=options["explain"])
    return 0 if result.sizing.starts else DoesNotFit.exit_code


def _is_given(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}


def _no_gpu() -> UsageError:
    import textwrap

    from modelberth.catalog.gpus import all_gpus

    known = ", ".join(gpu.name.replace(" ", "\xa0") for gpu in all_gpus())  # a name stays on one line
    names = textwrap.fill(known, 90, break_on_hyphens=False).replace("\xa0", " ")
    return UsageError(
        "no GPU is named",
        why="a plan is for one kind of card; name it by its node label (nvidia.com/gpu.product, such as NVIDIA-L4)\n"
        f"or by a common name:\n{names}",
        next_step="berth size MODEL --gpu L4",
    )


def _memory(text: str | None) -> int | None:
    """Bytes of a card that a person gave."""
    from modelberth.base.units import parse_bytes

    if text is None:
        return None
    size = parse_bytes(text)
    if not _LEAST_MEMORY <= size <= _MOST_MEMORY:
        reason = f"'{text}' is no memory of a GPU; expected a size with its unit, such as 22.03GiB"
        raise click.BadParameter(reason, param_hint="--gpu-memory")
    return size


def _page(result: SizeResult, path: Path) -> None:
    from modelberth.web.size_page import size_page

    name, sizing = result.source.name, result.sizing
    write_page(path, size_page([(name, sizing)], f"Memory plan: {name} on {sizing.gpu.product}"))


def _against(request: SizeRequest, log: Path, form: str, page: Path | None) -> int:
    """A plan made with the arguments that a log shows, beside what the log reports; one document."""
    from modelberth.cli.size_comparison import show_comparison
    from modelberth.flows.against import compare, flags_from, read_log
    from modelberth.flows.size import size_model

    report = read_log(log)
    result = size_model(replace(request, flags=flags_from(report, request.flags)))
    if page is not None:
        _page(result, page)
    show_comparison(compare(result.sizing, report), form)
    return 0
