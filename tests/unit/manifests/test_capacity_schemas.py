"""What stands before services, as an API server would take it: real definitions, unknown fields refused."""

from __future__ import annotations

import pytest

from capacity import ARGO_CD, MACHINE_SET, pool, stack, variant
from cluster_schemas import SHARED_CRDS, WHY_SKIPPED, crds_for, problems
from modelberth.catalog.platforms import KINDS, platform, versions
from modelberth.manifests.argo_cd import application
from modelberth.manifests.hardware_profiles import hardware_profiles
from modelberth.manifests.kueue import queue_objects
from modelberth.manifests.machine_sets import machine_sets
from modelberth.spec.services import services
from modelberth.spec.stack import Stack

pytestmark = pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason=WHY_SKIPPED)

PLATFORMS = [(kind, version) for kind in KINDS for version in versions(kind)]
COVERS = ["cpu", "memory", "nvidia.com/gpu", "ephemeral-storage"]
LONG = "x" * 63


def objects(found: Stack) -> list[dict]:
    facts = platform(found.platform.kind, found.platform.version)
    synced = [application(found, found.argo_cd, "gitops/step-05/base")] if found.argo_cd else []
    queue = queue_objects(found, facts, services(found))
    return [*queue, *hardware_profiles(found), *machine_sets(found), *synced]


@pytest.mark.parametrize("api", ["v1beta1", "v1beta2"])
@pytest.mark.parametrize(("kind", "version"), PLATFORMS)
def test_every_platform_takes_everything(kind: str, version: str, api: str):
    profile = {"hardwareProfile": {"name": "nvidia-l4-4gpu"}} if kind == "rhoai" else {}
    pools = [
        pool("a", instanceType="g6.4xlarge", nodeDisk="500GB", machineSet=MACHINE_SET),
        pool("b", count=4, nodes=2, instanceType="g6.12xlarge", **profile, machineSet=MACHINE_SET | {"replicas": 2}),
        pool("c", gpu="L40S", nodeLabels={"acme.example/gpu": "", "zone": "one"}),
    ]
    queue = {"name": "llm", "clusterQueue": "llm-cluster", "apiVersion": api, "covers": COVERS}
    found = stack(*pools, kind=kind, version=version, queue=queue, argoCd=ARGO_CD)
    written = objects(found)
    assert len(written) == 3 + 2 + (1 if profile else 0) + 2 + 1
    assert problems(written, crds_for(kind, version)) == []


def test_without_queue_and_argo_cd_too():
    found = stack(pool(hardwareProfile={"name": "x"}), pool("b"), kind="rhoai", version="3.5")
    assert problems(objects(found), crds_for("rhoai", "3.5")) == []


def test_the_longest_names_are_taken():
    declared = pool(
        LONG,
        instanceType="g6.4xlarge",
        hardwareProfile={"name": LONG},
        machineSet=MACHINE_SET | {"infrastructureName": LONG, "zone": LONG, "region": LONG},
        nodeLabels={f"{'d' * 63}.{'d' * 63}/{LONG[:-1]}{number}": LONG for number in range(8)},
    )
    found = stack(
        declared,
        metadata={"name": LONG, "namespace": LONG},
        variants=[variant("v", LONG)],
        queue={"name": LONG, "clusterQueue": LONG},
        argoCd=ARGO_CD | {"namespace": LONG, "project": LONG},
    )
    assert problems(objects(found), crds_for("rhoai", "3.4")) == []
