"""Small stacks for tests of what stands before services: nodes, queue, profiles, MachineSets, Argo CD."""

from __future__ import annotations

from modelberth.base.yamlio import write_documents
from modelberth.spec.reading import read_stack
from modelberth.spec.stack import Stack

MACHINE_SET = {
    "infrastructureName": "c1-x7k2p",
    "region": "us-east-2",
    "zone": "us-east-2b",
    "ami": "ami-0123456789abcdef0",
}
ARGO_CD = {"repository": "https://git.example.com/platform/models.git"}


def pool(name: str = "l4", **fields) -> dict:
    """A pool as plain data."""
    return {"name": name, "gpu": "NVIDIA-L4", "count": 1} | fields


def variant(name: str, pool: str = "l4", **fields) -> dict:
    """A variant as plain data, served from an image."""
    return {"name": name, "pool": pool, "weights": f"oci://quay.io/a/{name}:1"} | fields


def stack(
    *pools: dict, variants: list[dict] | None = None, kind: str = "rhoai", version: str = "3.4", **parts
) -> Stack:
    """A stack that is read as a file is; without variants there is one on each pool."""
    declared = list(pools) or [pool()]
    found = variants or [variant(f"v{number}", each["name"]) for number, each in enumerate(declared)]
    return read_stack(
        write_documents([{
            "apiVersion": "modelberth.dev/v1alpha1",
            "kind": "Stack",
            "metadata": {"name": "step-05", "namespace": "private-ai"},
            "platform": {"kind": kind, "version": version},
            "pools": declared,
            "models": [{"name": "m", "variants": found}],
            "storage": {"s3": {"bucket": "models"}},
        } | parts]).encode(),
        "berth.yaml",
    )  # fmt: skip
