"""A Kubernetes API server, behind a small interface of ours.

    kubeconfig, credentials   which cluster, and as whom
    wire                      signed requests, made again where that is safe
    cluster                   get, list, apply, patch, delete, logs, reviews
    watch                     list, then watch, and begin again when the history is gone
    forward                   a local port that leads to a pod
    errors                    one error a meaning

Over httpx2, which the other adapters use, and not the official client: its release 37 and botocore want different
releases of python-dateutil, it takes 126 MB and 0.3 s to import, and its credential plug-ins have no deadline and no
client certificates. What is not here: OIDC refresh inside of a kubeconfig (`auth-provider`), which Kubernetes removed
in 1.26.
"""

from modelberth.adapters.kubernetes_api.cluster import MANAGER, Cluster, connect, dropped_fields
from modelberth.adapters.kubernetes_api.errors import FieldConflict, FieldOwner, Gone, InvalidManifest
from modelberth.adapters.kubernetes_api.forward import Forward, forward
from modelberth.adapters.kubernetes_api.kinds import Access, Document, Kind, Listing, Ref
from modelberth.adapters.kubernetes_api.kubeconfig import Target
from modelberth.adapters.kubernetes_api.watch import Change, Watch, without_managed_fields

__all__ = [
    "MANAGER",
    "Access",
    "Change",
    "Cluster",
    "Document",
    "FieldConflict",
    "FieldOwner",
    "Forward",
    "Gone",
    "InvalidManifest",
    "Kind",
    "Listing",
    "Ref",
    "Target",
    "Watch",
    "connect",
    "dropped_fields",
    "forward",
    "without_managed_fields",
]
