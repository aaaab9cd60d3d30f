"""What would serve the same model for less: it starts, it costs less, and it says what is different."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelberth.catalog.gpus import find_gpu
from modelberth.catalog.instances import find_instance
from modelberth.sizing.alternatives import Alternative, alternatives
from modelberth.sizing.cost import pool_cost
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.model import Model
from modelberth.sizing.plan import size
from modelberth.spec.cluster import Pool

MISTRAL = "Mistral-Small-24B-Instruct-2501"
Found = Callable[..., tuple[Alternative, ...]]


@pytest.fixture(scope="module")
def found(model_named: Callable[[str], Model]) -> Found:
    """The alternatives to a model on a pool, vLLM 0.10.2 unless said otherwise."""

    def run(name: str, pool: dict[str, object], **flags: object) -> tuple[Alternative, ...]:
        given = Pool.model_validate({"name": "pool", **pool})
        wanted = EngineFlags(**{"vllm": "0.10.2", **flags})  # type: ignore[arg-type]
        present = size(model_named(name), find_gpu(given.gpu), wanted, gpus=given.count)
        return alternatives(model_named(name), wanted, given, present)

    return run


L4_FOUR = {"gpu": "NVIDIA-L4", "count": 4, "instanceType": "g6.12xlarge"}
CASES = [
    (MISTRAL, L4_FOUR, {"tensor_parallel": 4}),
    ("Qwen2.5-7B-Instruct", L4_FOUR, {"tensor_parallel": 4}),
    ("Qwen2.5-72B-Instruct", L4_FOUR, {"tensor_parallel": 4}),  # does not start
    ("Qwen3-8B-AWQ", {"gpu": "NVIDIA-L40S", "instanceType": "g6e.2xlarge"}, {}),
    ("gpt-oss-20b", {"gpu": "NVIDIA-H100-80GB-HBM3", "count": 8, "instanceType": "p5.48xlarge"}, {}),
    ("Qwen2.5-7B-Instruct", {"gpu": "NVIDIA-L4", "count": 8, "instanceType": "g2-standard-96"}, {"tensor_parallel": 4}),
]


def test_four_bits_on_one_l4_instead_of_four(found: Found):
    """The seed's case: $4.6016 an hour for g6.12xlarge, $0.8048 for g6.xlarge: 83 % less."""
    best = found(MISTRAL, L4_FOUR, tensor_parallel=4)[0]
    assert (best.precision, best.instance, best.gpus) == ("w4a16", "g6.xlarge", 1)
    assert best.cost.per_hour == 0.8048
    assert best.saves == pytest.approx(0.825, abs=0.001)
    assert best.changes == (
        "bf16 becomes w4a16",
        "tensor parallel 4 becomes 1",
        "g6.12xlarge becomes g6.xlarge",
    )


@pytest.mark.parametrize(("name", "pool", "flags"), CASES)
def test_every_alternative_starts_costs_less_and_serves_the_same(
    found: Found, model_named: Callable[[str], Model], name: str, pool: dict[str, object], flags: dict[str, int]
):
    given = Pool.model_validate({"name": "pool", **pool})
    wanted = EngineFlags(vllm="0.10.2", **flags)  # type: ignore[arg-type]
    present = size(model_named(name), find_gpu(given.gpu), wanted, gpus=given.count)
    paid = pool_cost(given, wanted.tensor_parallel)
    items = found(name, pool, **flags)
    assert 1 <= len(items) <= 5
    assert [each.cost.per_hour for each in items] == sorted(each.cost.per_hour for each in items)
    assert len({(each.precision, each.sizing.gpu.product) for each in items}) == len(items)
    for each in items:
        machine = find_instance(each.instance or given.instance_type)
        assert each.sizing.starts
        assert each.sizing.engine.max_model_len == present.engine.max_model_len
        assert each.sizing.gpu.product == machine.gpu
        assert each.sizing.engine.tensor_parallel == each.gpus <= machine.gpus
        assert machine.cloud == find_instance(given.instance_type).cloud
        assert each.changes
        if present.starts:
            assert each.saves == pytest.approx(1 - each.cost.per_hour / paid.per_hour)
            assert 0 < each.saves < 1
        else:
            assert each.saves is None


def test_fewer_gpus_of_the_same_machine(found: Found):
    """A pool whose machines cost next to nothing: nothing is cheaper but fewer of its own GPUs."""
    items = found("Qwen2.5-7B-Instruct", {**L4_FOUR, "pricePerHour": 0.4}, tensor_parallel=4)
    assert {each.instance for each in items} == {None}
    assert {each.gpus for each in items} == {1}
    assert {each.cost.per_hour for each in items} == {0.1}
    plain = next(each for each in items if each.precision == "bf16")
    assert plain.changes == ("tensor parallel 4 becomes 1",)


def test_what_is_quantised_stays_as_it_is(found: Found):
    items = found("Qwen3-8B-AWQ", {"gpu": "NVIDIA-L40S", "instanceType": "g6e.2xlarge"})
    assert {each.precision for each in items} == {"awq"}


def test_without_a_price_nothing_is_cheaper(found: Found):
    assert found("Qwen2.5-7B-Instruct", {"gpu": "NVIDIA-L4", "count": 4}, tensor_parallel=4) == ()
    # ... but what does not start at all is told what would.
    assert found("Qwen2.5-72B-Instruct", {"gpu": "NVIDIA-L4", "count": 4}, tensor_parallel=4)


def test_the_cheapest_has_no_alternative(found: Found):
    given = {"gpu": "NVIDIA-L4", "instanceType": "g6.xlarge", "pricePerHour": 0.01}
    assert found("Qwen2.5-0.5B-Instruct", given) == ()


@pytest.mark.parametrize("kind", ["g6.12xlarge", "G6.12XLARGE"])
def test_the_pool_s_own_machine_is_no_change(found: Found, kind: str):
    items = found("Qwen2.5-7B-Instruct", {**L4_FOUR, "instanceType": kind, "pricePerHour": 0.4}, tensor_parallel=4)
    assert {each.instance for each in items} == {None}


def test_the_pool_s_own_machine_is_no_change_on_azure(found: Found):
    pool = {"gpu": "NVIDIA-A100-80GB-PCIe", "count": 4, "instanceType": "Standard_NC96ads_A100_v4", "pricePerHour": 0.4}
    items = found("Qwen2.5-7B-Instruct", pool, tensor_parallel=4)
    assert {each.instance for each in items} == {None}
