"""The machine types: complete, of known GPUs, with prices that have a place and a day."""

from __future__ import annotations

import dataclasses
import re

import pytest

from modelberth.catalog import load
from modelberth.catalog.gpus import all_gpus
from modelberth.catalog.instances import InstanceType, all_instances, find_instance, instances_with

EVERY = pytest.mark.parametrize("instance", all_instances(), ids=lambda instance: instance.name)


def test_every_cloud_is_there_and_no_name_twice():
    assert {instance.cloud for instance in all_instances()} == {"aws", "azure", "gcp"}
    assert len({instance.name.lower() for instance in all_instances()}) == len(all_instances()) > 50


@pytest.mark.parametrize("entry", load("instances")["instances"], ids=lambda entry: entry["name"])
def test_an_entry_has_the_fields_of_all(entry: dict[str, object]):
    assert set(entry) == set(load("instances")["instances"][0])
    assert entry["source"] in load("instances")["sources"]


@EVERY
def test_a_machine_is_complete(instance: InstanceType):
    assert instance.gpu in {gpu.product for gpu in all_gpus()}
    assert instance.gpus in {1, 2, 4, 8}
    assert instance.vcpus >= 4 * instance.gpus
    assert 2 <= instance.memory_gib / instance.vcpus <= 32
    assert instance.local_disk_gb is None or 100 < instance.local_disk_gb < 100_000
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])(-[0-3]\d)?", instance.date)
    assert len(instance.source) > 40


@EVERY
def test_a_price_is_of_a_region(instance: InstanceType):
    assert (instance.price_per_hour is None) == (instance.region is None)
    if instance.price_per_hour is not None:
        # A wrong decimal point or a price of one GPU for a machine of eight would fall out of this.
        assert 0.3 < instance.price_per_hour / instance.gpus < 25
        assert instance.region


@pytest.mark.parametrize("product", sorted({instance.gpu for instance in all_instances()}))
def test_a_bigger_machine_costs_more(product: str):
    """Within one cloud: the machine with more of the same GPUs, and no fewer processors, never costs less."""
    priced = [instance for instance in instances_with(product) if instance.price_per_hour is not None]
    for one in priced:
        for other in priced:
            if one.cloud == other.cloud and one.gpus < other.gpus and one.vcpus <= other.vcpus:
                assert one.price_per_hour < other.price_per_hour


def test_a_machine_is_found_by_its_name():
    for instance in all_instances():
        assert find_instance(instance.name) is instance
        assert find_instance(f" {instance.name.upper()} ") is instance
    assert find_instance("g6.13xlarge") is None
    assert find_instance("") is None


def test_the_machine_of_four_l4():
    instance = find_instance("g6.12xlarge")
    assert instance is not None
    assert (instance.gpu, instance.gpus, instance.vcpus, instance.memory_gib) == ("NVIDIA-L4", 4, 48, 192)
    assert instance.price_per_hour == pytest.approx(4.6, abs=0.01)


@pytest.mark.parametrize("product", sorted({gpu.product for gpu in all_gpus()}))
def test_machines_of_a_gpu_are_cheapest_first(product: str):
    found = instances_with(product)
    assert set(found) == {instance for instance in all_instances() if instance.gpu == product}
    prices = [instance.price_per_hour for instance in found]
    known = [price for price in prices if price is not None]
    assert known == sorted(known)
    assert prices[len(known) :] == [None] * (len(prices) - len(known))


def test_a_machine_without_a_price_comes_last():
    unknown = [instance for instance in all_instances() if instance.price_per_hour is None]
    assert unknown
    for instance in unknown:
        assert instances_with(instance.gpu)[-1].price_per_hour is None
        assert len(instances_with(instance.gpu)) > 1


def test_no_machine_has_an_unknown_gpu():
    assert instances_with("NVIDIA-L5") == ()


def test_a_machine_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        all_instances()[0].price_per_hour = 1.0
