"""2xx: what vLLM is started with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from modelberth.base.text import names_secret
from modelberth.catalog import flags
from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import Argument, ServedModel, World
from modelberth.manifests.engine_flags import flag_problem

# What people set while they looked for CUDA's error 803, and left: none of it tunes anything.
_CRUTCHES = {
    "LD_LIBRARY_PATH": "the container toolkit sets the driver's path; a fixed one hides a driver that does not fit",
    "VLLM_USE_V1": "the engine's generation is the image's business; an image without V0 refuses 0",
    "VLLM_NO_HW_METRICS": "vLLM reads no such variable",
    "VLLM_ATTENTION_BACKEND": "the engine picks what the GPU can; a fixed one breaks with the next image",
}
_ENGINES = {"InferenceService", "LLMInferenceService", "ServingRuntime", "ClusterServingRuntime"}
_FOR_TOOLS = 8192
"""Tokens below which tool calls are said to have no room (adnan-drina/rhoai3-demo, commits e416d330 and 6a06c623)."""
_MANY = {"allowed-origins", "middleware", "lora-modules", "served-model-name", "override-generation-config"}


@rule(
    201,
    "high",
    "tool calls without a parser",
    "vLLM refuses to start: automatic tool choice needs to know how the model writes a call.",
)
def no_parser(world: World) -> Iterator[Hit]:
    """enable-auto-tool-choice alone."""
    for service in world.served:
        asked = service.argument("enable-auto-tool-choice")
        if asked and not service.argument("tool-call-parser"):
            fix = "add --tool-call-parser=..., the parser of the model's family"
            yield _hit(asked, "--enable-auto-tool-choice stands without --tool-call-parser", fix)


@rule(
    202,
    "medium",
    "a tool-call parser that is never used",
    "Without automatic tool choice the model's calls come out as text, and agents fail without an error.",
)
def parser_alone(world: World) -> Iterator[Hit]:
    """tool-call-parser alone."""
    for service in world.served:
        asked = service.argument("tool-call-parser")
        if asked and not service.argument("enable-auto-tool-choice"):
            yield _hit(asked, "--tool-call-parser has no effect alone", "add --enable-auto-tool-choice")


@rule(
    203,
    "high",
    "chat template that is no absolute path",
    "vLLM takes it for the template itself or finds no such file; tool calls then come out as raw text.",
)
def relative_template(world: World) -> Iterator[Hit]:
    """chat-template with a name."""
    for service in world.served:
        asked = service.argument("chat-template")
        if asked and not asked.value.startswith(("/", "http")) and not {"{", "%", "`"} & set(asked.value):
            fix = "an absolute path in the image, such as /opt/app-root/template/NAME.jinja"
            yield _hit(asked, f"--chat-template={asked.value} is a name", fix)


@rule(
    204,
    "medium",
    "trust-remote-code",
    "Python from the model's repository runs beside the GPU with the pod's rights; models that vLLM knows need none.",
)
def remote_code(world: World) -> Iterator[Hit]:
    """trust-remote-code, wherever it stands."""
    for service in world.served:
        asked = service.argument("trust-remote-code")
        if asked and asked.value.lower() != "false":
            yield _hit(asked, "--trust-remote-code lets the model's files run as code", "remove it")


@rule(
    205,
    "low",
    "a flag twice",
    "The last one counts; which that is depends on how runtime and service are joined.",
)
def twice(world: World) -> Iterator[Hit]:
    """Flags of the runtime that the service gives again, and flags given twice in one list."""
    for service in world.served:
        counts = Counter(each.flag for each in service.arguments if each.flag not in _MANY)
        for flag in (flag for flag, count in counts.items() if count > 1):
            last = service.argument(flag)
            if last is not None:
                yield _hit(last, f"--{flag} is given {counts[flag]} times to {service.name}", "keep one of them")


@rule(
    206,
    "high",
    "flag and value in one word",
    "Without an equals sign the whole text is one unknown flag: the engine refuses it, or takes it for the model.",
)
def one_word(world: World) -> Iterator[Hit]:
    """`--flag value` as one item of a list."""
    for service in world.served:
        for each in service.arguments:
            if re.fullmatch(r"[\w.-]+ +\S.*", each.flag, re.S):
                flag, _, value = each.flag.partition(" ")
                word = f"--{flag}={value.strip()}" + (f"={each.value}" if each.value else "")
                shown = _shown(flag, value.strip())
                yield _hit(each, f"'--{flag} {shown}' is one word", f"write --{flag}={shown}", replacement=word)


@rule(
    207,
    "low",
    "flag and value as two words",
    "A value that begins with a dash, or a line lost in a merge, becomes another flag.",
)
def two_words(world: World) -> Iterator[Hit]:
    """`--flag` and its value as two items."""
    seen = set()
    for service in world.served:
        for each in service.arguments:
            where = (id(each.manifest), each.path)
            if each.words == 2 and "env" not in each.path and where not in seen:
                seen.add(where)
                shown = _shown(each.flag, each.value)
                yield _hit(each, f"--{each.flag} and {shown} are two words", f"write --{each.flag}={shown}")


@rule(
    208,
    "high",
    "a flag that this vLLM does not know",
    "The engine ends at once with its usage; older ones take a word after it for the model's name.",
)
def unknown_flag(world: World) -> Iterator[Hit]:
    """Flags against the release of the platform, or against all releases where none is known."""
    for service in filter(lambda each: each.is_vllms_server, world.served):
        for each in service.arguments:
            problem = flag_problem(each.flag, each.value or None, world.vllm) if world.vllm else ""
            unheard = not world.vllm and flags.flag(each.flag) is None
            if "needs a value" in problem or "stands alone" in problem or " " in each.flag:
                continue  # how they are written is for other rules
            if problem or unheard:
                yield _hit(
                    each, problem or f"--{each.flag} is no flag of any vLLM", "remove it, or write its name as it is"
                )


@rule(
    209,
    "medium",
    "tool calls in too short a context",
    "The schemas of thirty tools alone take 12 to 16 thousand tokens: the request of an agent is refused as too long.",
)
def short_for_tools(world: World) -> Iterator[Hit]:
    """max-model-len beside enable-auto-tool-choice."""
    for service in world.served:
        asked = service.argument("max-model-len")
        if asked and asked.value.isdigit() and int(asked.value) < _FOR_TOOLS and (
            service.argument("enable-auto-tool-choice")
        ):  # fmt: skip
            message = f"{int(asked.value):,} tokens for prompt, tools and answer of {service.name}"
            yield _hit(asked, message, f"--max-model-len={_FOR_TOOLS} or more")


@rule(
    212,
    "medium",
    "a variable left from looking for an error",
    "It treats the symptom of a driver that does not fit the image, and stays when the cause is gone.",
)
def crutches(world: World) -> Iterator[Hit]:
    """Variables of engines."""
    for container in world.containers:
        if container.manifest.kind in _ENGINES:
            for index, name, _ in container.environment:
                if name in _CRUTCHES:
                    path = (*container.path, "env", index, "name")
                    yield Hit(container.manifest, path, f"{name}: {_CRUTCHES[name]}", "remove it")


@rule(
    213,
    "medium",
    "model name of the API is not the service's",
    "Clients that take the name from the service, the dashboard or the registry get 404 from vLLM.",
)
def other_name(world: World) -> Iterator[Hit]:
    """A runtime that fixes one name for all its services."""
    for service in world.served:
        asked = service.argument("served-model-name")
        if asked and service.runtime and asked.manifest is service.runtime and "{{" not in asked.value:
            message = f"the runtime names every model {asked.value}; this service is {service.name}"
            yield _hit(asked, message, "--served-model-name={{.Name}} in the runtime, or the name in each service")


def _hit(argument: Argument, message: str, fix: str, *, replacement: str | None = None) -> Hit:
    return Hit(argument.manifest, argument.path, message, fix, replacement)


def _shown(flag: str, value: str) -> str:
    """A value as it may be shown: that of --api-key is a secret."""
    return "..." if names_secret(flag) else value


def served_flags(service: ServedModel) -> dict[str, str]:
    """The arguments of a service by flag, the last of each."""
    return {each.flag: each.value for each in service.arguments}


RULES = (
    no_parser, parser_alone, relative_template, remote_code, twice, one_word, two_words, unknown_flag,
    short_for_tools, crutches, other_name,
)  # fmt: skip
