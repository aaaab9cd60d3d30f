"""Which NVIDIA driver an engine's image needs, and which one its own CUDA library hides (error 803)."""

from __future__ import annotations

from modelberth.catalog import load


def driver_trouble(kind: str, version: str, driver: int) -> tuple[str, str] | None:
    """What is wrong with a driver for the engine of a platform version, and what helps; None when nothing is known.

    Args:
        kind: rhoai or kserve.
        version: of the platform.
        driver: its major version, as 570.
    """
    facts = load("drivers")
    image = facts["platforms"].get(kind, {}).get(version)
    if image is None:
        return None
    needed = int(facts["minimumDriver"][str(image["cuda"])])
    if driver < needed:
        return (
            f"driver {driver} is too old for the engine's CUDA {image['cuda']}, which needs {needed}",
            "set driver.version of the ClusterPolicy",
        )
    hidden = image.get("hiddenFrom")
    if hidden is not None and driver >= hidden:
        return (
            f"the engine's image hides a driver of {hidden} and later behind its own library: CUDA error 803",
            "driver 570.195.03 in the ClusterPolicy (Red Hat solution 7134740); berth explain MB-DRV-001",
        )
    return None
