"""Which NVIDIA driver an engine's image needs, and which one its own CUDA library hides (error 803)."""

from __future__ import annotations

from modelberth.catalog import load
from modelberth.catalog.vllm import rules_for, within


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
    needed = _needed_for(image["cuda"])
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


def release_trouble(vllm: str, driver: int) -> tuple[str, str] | None:
    """What is wrong with a driver for an image that holds a release of vLLM; None when nothing is known.

    Args:
        vllm: the release, as 0.25.1.
        driver: its major version, as 570.
    """
    release = rules_for(vllm).release
    releases = reversed(load("drivers")["releases"])
    cuda = next((each["cuda"] for each in releases if within(release, each["since"], None)), None)
    if cuda is None or driver >= _needed_for(cuda):
        return None
    return (
        f"driver {driver} is too old for vLLM {vllm}, which is built for CUDA {cuda} and needs {_needed_for(cuda)}",
        "set driver.version of the ClusterPolicy, or take an image that is built for the driver's CUDA",
    )


def _needed_for(cuda: int) -> int:
    """The oldest driver, by its major version, that runs a major version of CUDA."""
    return int(load("drivers")["minimumDriver"][str(cuda)])
