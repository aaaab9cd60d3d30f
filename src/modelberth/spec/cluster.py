"""What `berth.yaml` says of the cluster: platform, GPUs, queue, registry, delivery from within, access, Argo CD."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, StringConstraints

from modelberth.spec.fields import ImageText, Label, LabelKey, LabelValue, SizeText, Strict
from modelberth.spec.storage import Credentials


class Platform(Strict):
    """The serving platform that manifests are rendered for."""

    kind: Literal["rhoai", "kserve"] = Field(description="rhoai (Red Hat OpenShift AI) or kserve (upstream).")
    version: str = Field(description='Version of the platform, in quotes: "3.0".', examples=["3.0"])
    engine_image: ImageText | None = Field(
        default=None,
        description="Image of vLLM instead of the platform's, with a digest or a tag.",
        examples=["docker.io/vllm/vllm-openai:v0.25.1"],
    )
    vllm: str | None = Field(
        default=None, pattern=r"^[0-9]+(\.[0-9A-Za-z]+)*$", examples=["0.25.1"],
        description="Release of vLLM that is planned for and rendered; the platform's own when absent.",
    )  # fmt: skip
    runtime: Label = Field(
        default="vllm-runtime", description="Name of the ServingRuntime; two stacks in one namespace need two."
    )
    applications_namespace: Label = Field(
        default="redhat-ods-applications", description="Namespace of the platform's own objects: hardware profiles."
    )


class HardwareProfile(Strict):
    """A hardware profile of OpenShift AI: what the dashboard offers, and where it puts a workload."""

    name: Label = Field(description="Name of the profile.", examples=["nvidia-l4-1gpu"])
    existing: bool = Field(default=False, description="It is on the cluster already: refer to it, render none.")


class MachineSet(Strict):
    """A MachineSet of OpenShift on AWS that brings the nodes of a pool."""

    infrastructure_name: Label = Field(
        description="Of the cluster: oc get infrastructure cluster -o jsonpath='{.status.infrastructureName}'."
    )
    region: Label = Field(description="Region of the cluster.", examples=["us-east-2"])
    zone: Label = Field(description="Availability zone of the nodes.", examples=["us-east-2b"])
    ami: Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")] = Field(
        description="Machine image of the cluster's other workers: ami-..."
    )
    replicas: int = Field(default=0, ge=0, le=1000, description="Nodes to begin with; 0 costs nothing.")


class Pool(Strict):
    """GPUs of one kind: nodes of one instance type."""

    name: Label = Field(description="Name that variants refer to.")
    gpu: str = Field(
        min_length=1,
        description="GPU product, as the node label nvidia.com/gpu.product says it.",
        examples=["NVIDIA-L4"],
    )
    count: int = Field(default=1, ge=1, le=16, description="GPUs in one node.")
    nodes: int = Field(default=1, ge=1, le=1000, description="Nodes in the pool.")
    instance_type: str | None = Field(default=None, description="Cloud instance type.", examples=["g6.4xlarge"])
    price_per_hour: FiniteFloat | None = Field(
        default=None, ge=0, description="Dollars an hour for one node, instead of the catalogue's."
    )
    node_disk: SizeText | None = Field(
        default=None,
        description="Disk of a node that images and ephemeral storage share, with its unit.",
        examples=["500GB"],
    )
    node_labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        description="Labels of its nodes; the instance type's, or the GPU product's, when absent.",
        json_schema_extra={"additionalProperties": False},
    )
    hardware_profile: HardwareProfile | None = Field(
        default=None, description="The hardware profile of its services, on OpenShift AI."
    )
    machine_set: MachineSet | None = Field(default=None, description="The MachineSet that brings its nodes, on AWS.")


class Queue(Strict):
    """The Kueue queue that admits the services."""

    name: Label = Field(description="LocalQueue in the stack's namespace.")
    cluster_queue: Label | None = Field(
        default=None, description="ClusterQueue behind it; where given, it is rendered with its flavours and quotas."
    )
    covers: tuple[LabelKey, ...] = Field(
        default=("cpu", "memory", "nvidia.com/gpu"), min_length=1,
        description="Resources that the ClusterQueue has quotas for; what asks for another is never admitted.",
    )  # fmt: skip
    api_version: Literal["v1beta1", "v1beta2"] | None = Field(
        default=None, description="Version of Kueue's API; what the platform's Kueue serves when absent."
    )


class ModelRegistry(Strict):
    """The Kubeflow Model Registry that records what is served."""

    url: str = Field(pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$", description="URL of the registry's REST service.")
    credentials: Credentials = Field(default=Credentials(), description="Where its bearer token is found.")


class Workspace(Strict):
    """A volume for parts on their way, instead of the node's own disk."""

    size: SizeText = Field(description="Size of the volume.", examples=["100GiB"])
    storage_class: Label | None = Field(
        default=None, description="Its StorageClass; the cluster's default when absent."
    )


class HubToken(Strict):
    """Where the token of the Hugging Face Hub is found."""

    secret: Label = Field(description="Name of a Secret in the namespace of the upload Jobs.")
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=253)] = Field(
        default="token", description="Key of the Secret."
    )


class Delivery(Strict):
    """How weights get to the store from within the cluster."""

    image: ImageText = Field(
        description="Image of berth, built from its Containerfile, with a digest or a tag.",
        examples=["registry.example.com/platform/modelberth:0.1.0"],
    )
    namespace: Label | None = Field(
        default=None, description="Namespace of the upload Jobs; the stack's when absent. Best one without a queue."
    )
    workspace: Workspace | None = Field(
        default=None, description="A volume for parts on their way; some GiB of the node's disk when absent."
    )
    hub_token: HubToken | None = Field(default=None, description="Token for sources on the Hub that are not public.")


class Access(Strict):
    """Who reaches the services."""

    route: bool = Field(default=False, description="A Route makes them reachable from outside; OpenShift AI only.")
    auth: bool = Field(default=False, description="Callers need a token of the cluster; OpenShift AI only.")


class ArgoCd(Strict):
    """The Argo CD Application that syncs the rendered tree."""

    repository: str = Field(
        # https without anything before the host: a token there would end in the rendered tree.
        pattern=r"^(https://[^\s@?#]+|ssh://[a-z_][a-z0-9_-]*@[^\s@?#]+|[a-z_][a-z0-9_-]*@[A-Za-z0-9.-]+:[^\s@?#]+)$",
        description="URL of the Git repository that holds the tree, without credentials.",
        examples=["https://git.example.com/platform/models.git"],
    )
    path: str = Field(
        default="", pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)?$",
        description="Folder of the repository that gitops/ is in; the top when absent.",
    )  # fmt: skip
    revision: str = Field(
        default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", description="Branch, tag or commit."
    )
    project: Label = Field(default="default", description="Argo CD project.")
    namespace: Label = Field(default="openshift-gitops", description="Namespace of Argo CD.")
    automated: bool = Field(default=True, description="Sync by itself, and put back what was changed by hand.")
