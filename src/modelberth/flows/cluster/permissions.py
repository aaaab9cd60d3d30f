"""What a deployment must be allowed to do, all of it asked before anything is changed, and the Role that grants it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelberth.adapters.kubernetes_api import Access, Cluster, Document, Ref
from modelberth.base.errors import AuthError, PrerequisiteMissing
from modelberth.base.yamlio import write_documents

_OF_OBJECTS = ("get", "list", "create", "patch")
_OF_WATCHING = (
    Access("list", "", "pods"), Access("watch", "", "pods"), Access("get", "", "pods/log"),
    Access("create", "", "pods/portforward"), Access("list", "", "events"),
    Access("watch", "serving.kserve.io", "inferenceservices"),
)  # fmt: skip


def needed(cluster: Cluster, objects: Iterable[Document], namespace: str) -> tuple[Access, ...]:
    """What a deployment of these objects does. Server-side apply needs the rights to patch and to create.

    Raises:
        PrerequisiteMissing: kinds that the cluster does not have, all of them named.
    """
    found: dict[Access, None] = {}
    absent: list[str] = []
    for each in objects:
        ref = Ref.of(each)
        if not cluster.serves(ref.kind):
            absent.append(f"{ref.kind.kind} ({ref.kind.api_version})")
            continue
        place = ref.namespace if cluster.is_namespaced(ref.kind) else None
        for verb in _OF_OBJECTS:
            found[Access(verb, ref.kind.group, cluster.resource(ref.kind), place)] = None
    if absent:
        raise PrerequisiteMissing(
            "the cluster lacks kinds that this stack needs", where=cluster.server,
            why="\n".join(dict.fromkeys(absent)), next_step="install their operators, or leave them out of berth.yaml",
        )  # fmt: skip
    for access in _OF_WATCHING:
        found[Access(access.verb, access.group, access.resource, namespace)] = None
    return tuple(found)


def require(cluster: Cluster, wanted: Sequence[Access], namespace: str) -> None:
    """Make sure that all of it is allowed.

    Raises:
        AuthError: what is missing, all at once, with the Role that grants it.
    """
    missing = cluster.review(wanted)
    if not missing:
        return
    lines = [str(each) for each in missing]
    raise AuthError(
        f"{len(missing)} rights are missing", where=f"{cluster.server} as {cluster.user}",
        why="\n".join([*lines, "", "this grants them:", *role(missing, namespace).splitlines()]),
        next_step="ask an administrator of the cluster to apply it",
    )  # fmt: skip


def role(missing: Iterable[Access], namespace: str) -> str:
    """The Role, or ClusterRole where one is needed, that grants what is missing, as YAML."""
    rules: dict[tuple[str, str], list[str]] = {}
    of_cluster = False
    for each in missing:
        rules.setdefault((each.group, each.resource), []).append(each.verb)
        of_cluster = of_cluster or each.namespace is None
    kind = "ClusterRole" if of_cluster else "Role"
    about = {"name": "berth-deploy"} | ({} if of_cluster else {"namespace": namespace})
    listed = [
        {"apiGroups": [group], "resources": [resource], "verbs": verbs} for (group, resource), verbs in rules.items()
    ]
    document = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": about, "rules": listed}
    return write_documents([document])
