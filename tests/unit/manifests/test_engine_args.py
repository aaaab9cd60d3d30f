"""The engine's arguments, on the cluster and on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.units import GIB
from modelberth.manifests.engine_args import (
    Argument,
    LocalSeat,
    engine_arguments,
    left_to_the_cluster,
    local_arguments,
)
from modelberth.spec.reading import read_stack
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Prefill

SEAT = LocalSeat(model="/state/weights", host="127.0.0.1", port=8133, gpus=0, kv_cache_bytes=GIB)


@pytest.fixture(scope="module")
def harbor_services(harbor: Path) -> dict[str, Service]:
    """The services of the example, by name."""
    path = harbor / "berth.yaml"
    return {service.name: service for service in services(read_stack(path.read_bytes(), str(path)))}


@pytest.fixture(scope="module")
def with_fields(harbor_services: dict[str, Service]) -> Callable[..., Service]:
    """The BF16 service of the example with other fields of its variant."""

    def run(**fields: Any) -> Service:
        service = harbor_services["harbor-bf16"]
        return replace(service, variant=service.variant.model_copy(update=fields))

    return run


BARE = {
    "tensor_parallel_size": 1,
    "dtype": "auto",
    "kv_cache_dtype": "auto",
    "max_model_len": None,
    "gpu_memory_utilization": None,
}

# --- on the cluster ------------------------------------------------------------------------------------

RUNTIME = ("--port=8080", "--model=/mnt/models")


def further(service: Service) -> list[str]:
    """What a service adds to the runtime's arguments beside its name."""
    name, *rest = [argument.text() for argument in engine_arguments(service).service]
    assert name == f"--served-model-name={service.served_name}"
    return rest


def test_the_services_of_the_example(harbor_services: dict[str, Service]):
    assert engine_arguments(harbor_services["harbor-bf16"]).texts() == (
        *RUNTIME,
        "--served-model-name=harbor-bf16",
        "--tensor-parallel-size=4",
        "--dtype=bfloat16",
        "--max-model-len=1024",
        "--gpu-memory-utilization=0.9",
    )
    assert engine_arguments(harbor_services["harbor-int4"]).texts() == (
        *RUNTIME,
        "--served-model-name=harbor-int4",
        "--dtype=bfloat16",
        "--max-model-len=1024",
        "--gpu-memory-utilization=0.9",
    )


def test_the_runtime_gives_what_every_service_has_and_the_service_the_rest(with_fields: Callable[..., Service]):
    arguments = engine_arguments(with_fields(**BARE))
    assert [argument.flag for argument in arguments.runtime] == ["port", "model"]
    assert [argument.flag for argument in arguments.service] == ["served-model-name"]


def test_every_field_has_its_flag(with_fields: Callable[..., Service]):
    fields = {"kv_cache_dtype": "fp8", "max_model_len": 8192, "gpu_memory_utilization": 0.925}
    service = with_fields(**BARE | fields | {"tensor_parallel_size": 2, "dtype": "float16"})
    assert further(service) == [
        "--tensor-parallel-size=2",
        "--dtype=float16",
        "--kv-cache-dtype=fp8",
        "--max-model-len=8192",
        "--gpu-memory-utilization=0.925",
    ]


EXTRAS: dict[str, tuple[Any, list[str]]] = {
    "text": ("mistral", ["--flag=mistral"]),
    "empty text": ("", ["--flag="]),
    "text with spaces": ("a b --c", ["--flag=a b --c"]),
    "text that looks like JSON": ('{"a": 1}', ['--flag={"a": 1}']),
    "whole number": (64, ["--flag=64"]),
    "zero": (0, ["--flag=0"]),
    "one": (1, ["--flag=1"]),
    "fraction": (2.5, ["--flag=2.5"]),
    "true": (True, ["--flag"]),
    "false": (False, ["--no-flag"]),
    "list": (("a", 1, 2.5), ["--flag=a", "--flag=1", "--flag=2.5"]),
    "list of truths": ((True, False), ["--flag", "--no-flag"]),
    "empty list": ((), []),
}


@pytest.mark.parametrize("case", EXTRAS.values(), ids=EXTRAS)
def test_further_flags(case: tuple[Any, list[str]], with_fields: Callable[..., Service]):
    value, texts = case
    assert further(with_fields(**BARE, engine_args={"flag": value})) == texts


def test_further_flags_come_last_and_in_order(with_fields: Callable[..., Service]):
    extras = {"tool-call-parser": "mistral", "enable-auto-tool-choice": True, "a": 1}
    texts = engine_arguments(with_fields(engine_args=extras)).texts()
    assert texts[-3:] == ("--tool-call-parser=mistral", "--enable-auto-tool-choice", "--a=1")


values = st.text(max_size=12) | st.integers() | st.floats(allow_nan=False) | st.booleans()
flags = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9.]{1,4}){0,2}", fullmatch=True)


@given(st.dictionaries(flags, values | st.lists(values, max_size=3).map(tuple), max_size=4))
def test_a_value_stays_in_its_own_word(with_fields: Callable[..., Service], extras: dict[str, Any]):
    """Whatever a value holds (spaces, quotes, dashes, line ends), it is neither another flag nor another word."""
    expected = sum(len(value) if isinstance(value, tuple) else 1 for value in extras.values())
    words = further(with_fields(**BARE, engine_args=extras))
    assert len(words) == expected
    for word in words:
        head, equals, _ = word.partition("=")
        assert head.startswith("--")
        assert not any(character.isspace() for character in head)
        assert (head.removeprefix("--") in extras) or (not equals and head.removeprefix("--no-") in extras)
    texts = [str(item) for value in extras.values() for item in (value if isinstance(value, tuple) else (value,))
             if not isinstance(item, bool)]  # fmt: skip
    assert [word.partition("=")[2] for word in words if "=" in word] == texts


# --- on this machine -----------------------------------------------------------------------------------


def test_the_example_on_a_machine_without_gpus(harbor_services: dict[str, Service]):
    bf16 = local_arguments(engine_arguments(harbor_services["harbor-bf16"]), SEAT)
    assert bf16.texts() == (
        "--host=127.0.0.1",
        "--port=8133",
        "--model=/state/weights",
        "--served-model-name=harbor-bf16",
        "--tensor-parallel-size=1",
        "--dtype=bfloat16",
        "--max-model-len=1024",
        "--kv-cache-memory-bytes=1073741824",
    )
    assert bf16.replacements == (
        "tensor-parallel-size 4 becomes 1: no GPU here",
        "gpu-memory-utilization 0.9 becomes a KV cache of 1.00 GiB: no GPU here",
    )
    int4 = local_arguments(engine_arguments(harbor_services["harbor-int4"]), SEAT)
    assert int4.texts() == (*bf16.texts()[:3], "--served-model-name=harbor-int4", *bf16.texts()[5:])
    assert int4.replacements == bf16.replacements[1:]


@pytest.mark.parametrize(
    ("gpus", "ranks", "replacements"),
    [
        (1, 1, ("tensor-parallel-size 4 becomes 1: 1 GPU here",)),
        (2, 2, ("tensor-parallel-size 4 becomes 2: 2 GPUs here",)),
        (4, 4, ()),
        (8, 4, ()),
    ],
)
def test_with_gpus_only_what_is_not_there_is_replaced(
    gpus: int, ranks: int, replacements: tuple[str, ...], harbor_services: dict[str, Service]
):
    cluster = engine_arguments(harbor_services["harbor-bf16"])
    local = local_arguments(cluster, replace(SEAT, gpus=gpus, kv_cache_bytes=None))
    assert local.replacements == replacements
    assert Argument("tensor-parallel-size", str(ranks)) in local.arguments
    assert Argument("gpu-memory-utilization", "0.9") in local.arguments
    assert "kv-cache-memory-bytes" not in [argument.flag for argument in local.arguments]
    assert len(local.arguments) == len(cluster.texts()) + 1


def test_what_was_not_declared_is_not_said_to_be_replaced(with_fields: Callable[..., Service]):
    local = local_arguments(engine_arguments(with_fields(**BARE)), SEAT)
    assert local.replacements == ()


def test_further_flags_are_kept_on_this_machine(with_fields: Callable[..., Service]):
    extras = {"enforce-eager": True, "enable-prefix-caching": False, "max-num-seqs": 4}
    local = local_arguments(engine_arguments(with_fields(**BARE, engine_args=extras)), SEAT).texts()
    assert {"--enforce-eager", "--no-enable-prefix-caching", "--max-num-seqs=4"} < set(local)


def test_a_declared_cache_is_replaced_and_said_without_gpus(harbor_services: dict[str, Service]):
    cluster = engine_arguments(harbor_services["harbor-int4"])
    declared = replace(cluster, service=(*cluster.service, Argument("kv-cache-memory-bytes", "7")))
    local = local_arguments(declared, SEAT)
    assert [argument for argument in local.texts() if "kv-cache" in argument] == [
        f"--kv-cache-memory-bytes={SEAT.kv_cache_bytes}"
    ]
    assert "kv-cache-memory-bytes 7 becomes a KV cache of 1.00 GiB: no GPU here" in local.replacements


def test_what_only_a_cluster_has_is_said(with_fields: Callable[..., Service]):
    assert left_to_the_cluster(with_fields()) == ()
    several = with_fields(replicas=3, data_parallel_size=2, prefill=Prefill())
    assert left_to_the_cluster(several) == (
        "replicas 3 becomes 1: one process here",
        "data-parallel-size 2 becomes 1: one process here",
        "prefill apart from decode becomes one engine: one process here",
    )
