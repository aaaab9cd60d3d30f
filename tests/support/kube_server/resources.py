"""What the double serves: kinds with their plurals, groups, versions and subresources."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """One resource of the API.

    Attributes:
        group: empty for the core.
        versions: that are served, the preferred one first.
        kind: of its objects.
        plural: in paths.
        namespaced: whether its objects stand in namespaces.
    """

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def name(self) -> str:
        """`inferenceservices.serving.kserve.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


RESOURCES = (
    Resource("", ("v1",), "Namespace", "namespaces", False),
    Resource("", ("v1",), "Node", "nodes", False),
    Resource("", ("v1",), "Pod", "pods"),
    Resource("", ("v1",), "Event", "events"),
    Resource("", ("v1",), "Secret", "secrets"),
    Resource("", ("v1",), "ConfigMap", "configmaps"),
    Resource("", ("v1",), "Service", "services"),
    Resource("", ("v1",), "ServiceAccount", "serviceaccounts"),
    Resource("", ("v1",), "PersistentVolumeClaim", "persistentvolumeclaims"),
    Resource("apps", ("v1",), "Deployment", "deployments"),
    Resource("apps", ("v1",), "ReplicaSet", "replicasets"),
    Resource("batch", ("v1",), "Job", "jobs"),
    Resource("coordination.k8s.io", ("v1",), "Lease", "leases"),
    Resource("rbac.authorization.k8s.io", ("v1",), "Role", "roles"),
    Resource("rbac.authorization.k8s.io", ("v1",), "RoleBinding", "rolebindings"),
    Resource("serving.kserve.io", ("v1beta1",), "InferenceService", "inferenceservices"),
    Resource("serving.kserve.io", ("v1alpha1",), "ServingRuntime", "servingruntimes"),
    Resource("serving.kserve.io", ("v1alpha2", "v1alpha1"), "LLMInferenceService", "llminferenceservices"),
    Resource("kueue.x-k8s.io", ("v1beta1",), "ClusterQueue", "clusterqueues", False),
    Resource("kueue.x-k8s.io", ("v1beta1",), "LocalQueue", "localqueues"),
    Resource("kueue.x-k8s.io", ("v1beta1",), "ResourceFlavor", "resourceflavors", False),
    Resource("kueue.x-k8s.io", ("v1beta1",), "Workload", "workloads"),
    Resource("infrastructure.opendatahub.io", ("v1",), "HardwareProfile", "hardwareprofiles"),
    Resource("machine.openshift.io", ("v1beta1",), "MachineSet", "machinesets"),
    Resource("route.openshift.io", ("v1",), "Route", "routes"),
    Resource("operators.coreos.com", ("v1alpha1",), "ClusterServiceVersion", "clusterserviceversions"),
    Resource("nvidia.com", ("v1",), "ClusterPolicy", "clusterpolicies", False),
    Resource("external-secrets.io", ("v1",), "ExternalSecret", "externalsecrets"),
    Resource("argoproj.io", ("v1alpha1",), "Application", "applications"),
)  # fmt: skip
