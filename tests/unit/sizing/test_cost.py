"""What a service costs, with the source of the price."""

from __future__ import annotations

import pytest

from modelberth.catalog.instances import all_instances, find_instance
from modelberth.sizing.cost import machine_cost, pool_cost
from modelberth.spec.cluster import Pool


def pool(**fields: object) -> Pool:
    return Pool.model_validate({"name": "pool", "gpu": "NVIDIA-L4", **fields})


def test_a_whole_machine_of_the_catalogue():
    """g6.12xlarge: $4.6016 an hour, 730 hours a month."""
    found = pool_cost(pool(count=4, instanceType="g6.12xlarge"), 4)
    assert found.per_hour == found.machine_per_hour == 4.6016
    assert found.per_month == pytest.approx(3359.17, abs=0.01)
    assert (found.share, found.region, found.date) == (1.0, "us-east-1", "2026-07-20")
    assert "AWS" in found.source


def test_a_share_of_a_machine():
    found = pool_cost(pool(count=4, instanceType="g6.12xlarge"), 1)
    assert (found.share, found.per_hour, found.machine_per_hour) == (0.25, pytest.approx(1.1504), 4.6016)


def test_several_machines():
    found = pool_cost(pool(count=4, nodes=3, instanceType="g6.12xlarge"), 8)
    assert (found.share, found.per_hour) == (2.0, pytest.approx(9.2032))


def test_a_declared_price_comes_first():
    found = pool_cost(pool(count=4, instanceType="g6.12xlarge", pricePerHour=2.0), 2)
    assert (found.per_hour, found.machine_per_hour, found.share) == (1.0, 2.0, 0.5)
    assert (found.source, found.date, found.region) == ("pricePerHour in berth.yaml", "", "")


def test_a_declared_price_of_nothing_is_a_price():
    assert pool_cost(pool(pricePerHour=0.0), 1).per_hour == 0.0


@pytest.mark.parametrize("kind", [None, "no-such-machine", "p5e.48xlarge"])
def test_without_a_price_there_is_no_cost(kind: str | None):
    assert pool_cost(pool(instanceType=kind), 1) is None


def test_the_case_of_a_name_does_not_matter():
    one, other = (pool_cost(pool(instanceType=name), 1) for name in ("g6.xlarge", "G6.XLarge"))
    assert one == other is not None


def test_a_machine_without_a_price():
    assert machine_cost(find_instance("p5e.48xlarge"), 8) is None


@pytest.mark.parametrize("name", [each.name for each in all_instances() if each.price_per_hour is not None])
def test_all_gpus_of_a_machine_cost_its_price(name: str):
    machine = find_instance(name)
    found = machine_cost(machine, machine.gpus)
    assert found.per_hour == pytest.approx(machine.price_per_hour)
    assert machine_cost(machine, 1).per_hour == pytest.approx(machine.price_per_hour / machine.gpus)
