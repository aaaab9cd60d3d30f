"""The platforms that a stack can name, and what each version ships and understands."""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.catalog import load
from modelberth.catalog.vllm import latest

KINDS = ("rhoai", "kserve")
UPSTREAM_IMAGE = "docker.io/vllm/vllm-openai"
"""Image of vLLM's own project, with one tag a release: `:v0.25.1`. It runs as root unless it is told otherwise."""


@dataclass(frozen=True)
class Platform:
    """One version of a platform.

    Attributes:
        kind: `rhoai` or `kserve`.
        title: the platform's full name.
        version: as a stack writes it.
        kserve: release of KServe in it.
        vllm: release of vLLM that it ships; the newest known where it ships none of its own.
        image: image of that vLLM.
        pinned: whether the image is named by its digest.
        deployment_mode: what `serving.kserve.io/deploymentMode` is called for plain Deployments. The older word
            `RawDeployment` is read by every version, the newer `Standard` since KServe 0.16.
        llm_api: version of LLMInferenceService; None where there is no such kind.
        llm_startup_probe: whether the preset of LLMInferenceService waits for a start before it asks for liveness.
        kueue_api: version of Kueue's API that its Kueue serves.
    """

    kind: str
    title: str
    version: str
    kserve: str
    vllm: str
    image: str
    deployment_mode: str
    llm_api: str | None
    llm_startup_probe: bool
    kueue_api: str

    @property
    def pinned(self) -> bool:
        """Whether the image is named by its digest."""
        return "@sha256:" in self.image

    @property
    def is_openshift_ai(self) -> bool:
        """Whether dashboard, connections and hardware profiles are there."""
        return self.kind == "rhoai"


def versions(kind: str) -> tuple[str, ...]:
    """The versions of a platform that this release knows, oldest first."""
    return tuple(load("platforms")[kind]["versions"])


def title(kind: str) -> str:
    """The platform's full name."""
    return str(load("platforms")[kind]["title"])


def vllm(kind: str, version: str) -> str | None:
    """The vLLM that a platform version ships; None where the platform ships none of its own."""
    shipped = load("platforms")[kind]["versions"][version]["vllm"]
    return None if shipped is None else str(shipped)


def platform(kind: str, version: str, *, release: str | None = None, image: str | None = None) -> Platform:
    """What is known of a platform version.

    Args:
        kind: `rhoai` or `kserve`.
        version: one of `versions(kind)`; KeyError for another.
        release: release of vLLM, where it is not the platform's own.
        image: image of vLLM, where it is not the platform's own.
    """
    facts = load("platforms")[kind]["versions"][version]
    engine = release or facts["vllm"] or latest()
    own = facts["image"] if release in (None, facts["vllm"]) else None
    return Platform(
        kind=kind,
        title=title(kind),
        version=version,
        kserve=facts["kserve"],
        vllm=engine,
        image=image or own or f"{UPSTREAM_IMAGE}:v{engine}",
        deployment_mode=facts["deploymentMode"],
        llm_api=facts["llmInferenceService"],
        llm_startup_probe=facts["llmStartupProbe"],
        kueue_api=facts["kueue"],
    )
