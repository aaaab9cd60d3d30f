"""What a service costs: its share of a machine's price, by the hour and by the month, with the price's source."""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.catalog.instances import InstanceType, find_instance
from modelberth.spec.cluster import Pool

HOURS_PER_MONTH = 730
"""Hours of an average month: 8,760 / 12, as clouds count."""


@dataclass(frozen=True)
class Cost:
    """The price of what a service holds.

    Attributes:
        per_hour: US dollars, for the GPUs that it holds.
        machine_per_hour: US dollars, for the whole machine.
        share: GPUs it holds of those in the machine, 0 to 1.
        source: where the price is from.
        date: when it was read; empty for one that the user declares.
        region: where it holds; empty where that is not known.
    """

    per_hour: float
    machine_per_hour: float
    share: float
    source: str
    date: str
    region: str

    @property
    def per_month(self) -> float:
        """US dollars for `HOURS_PER_MONTH`."""
        return self.per_hour * HOURS_PER_MONTH


def pool_machine(pool: Pool) -> InstanceType | None:
    """The machine type of a pool; None where it names none, or one that the catalogue does not have."""
    return find_instance(pool.instance_type) if pool.instance_type else None


def pool_cost(pool: Pool, gpus: int) -> Cost | None:
    """What `gpus` GPUs of a pool's machine cost; None where no price is known.

    A service on more GPUs than one machine has pays for several machines.
    """
    machine = pool_machine(pool)
    share = gpus / pool.count
    if pool.price_per_hour is not None:
        return Cost(pool.price_per_hour * share, pool.price_per_hour, share, "pricePerHour in berth.yaml", "", "")
    return machine_cost(machine, gpus) if machine else None


def machine_cost(machine: InstanceType, gpus: int) -> Cost | None:
    """What `gpus` GPUs of a machine type cost; None where no price is known."""
    if machine.price_per_hour is None:
        return None
    share = gpus / machine.gpus
    return Cost(
        machine.price_per_hour * share, machine.price_per_hour, share, machine.source, machine.date,
        machine.region or "",
    )  # fmt: skip
