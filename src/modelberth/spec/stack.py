"""The stack: everything `berth.yaml` can say, as strict frozen models. The JSON Schema comes from here.

Field descriptions are what an editor shows while the user types. A secret value has no field anywhere:
credentials are references.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints
from pydantic.alias_generators import to_camel

from modelberth.base.errors import UsageError
from modelberth.base.units import parse_bytes
from modelberth.spec import addresses

MAX_SERVICE_NAME = 53
"""Longest InferenceService name that the platform's model controller accepts."""


def _weights(text: str) -> str:
    addresses.parse_weights(text)
    return text


def _source(text: str) -> str:
    addresses.parse_source(text)
    return text


def _size(text: str) -> str:
    parse_bytes(text)
    return text


def _as_value_error(check: AfterValidator) -> AfterValidator:
    """Pydantic turns ValueError into a problem with a position; our errors are not ValueErrors."""

    def run(text: str) -> str:
        try:
            return str(check.func(text))  # type: ignore[call-arg]
        except UsageError as error:
            raise ValueError(f"{error.what}: {error.why}" if error.why else error.what) from error

    return AfterValidator(run)


# RFC 1123 label, as Kubernetes wants names.
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=63)]
ServiceName = Annotated[
    str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=MAX_SERVICE_NAME)
]
WeightsText = Annotated[str, _as_value_error(AfterValidator(_weights))]
SourceText = Annotated[str, _as_value_error(AfterValidator(_source))]
EngineValue = str | int | FiniteFloat | bool
FlagName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9.]+)*$")]
Quantization = Literal["w4a16", "w8a16", "w8a8", "fp8", "awq", "gptq", "nvfp4", "mxfp4"]


class _Model(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


class Metadata(_Model):
    """Names of the whole stack."""

    name: Label = Field(description="Name of the stack; the rendered tree is gitops/<name>/.")
    namespace: Label = Field(default="default", description="Namespace of the services on the cluster.")


class Platform(_Model):
    """The serving platform that manifests are rendered for."""

    kind: Literal["rhoai", "kserve"] = Field(description="rhoai (Red Hat OpenShift AI) or kserve (upstream).")
    version: str = Field(description='Version of the platform, in quotes: "3.0".', examples=["3.0"])


class Pool(_Model):
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
    node_disk: Annotated[str, _as_value_error(AfterValidator(_size))] | None = Field(
        default=None,
        description="Disk of a node that images and ephemeral storage share, with its unit.",
        examples=["500GB"],
    )


class Credentials(_Model):
    """Where credentials are found. Never the credentials themselves."""

    secret: Label | None = Field(default=None, description="Name of a Kubernetes Secret in the stack's namespace.")
    profile: str | None = Field(default=None, description="Name of an AWS profile on the machine that runs berth.")


class S3Storage(_Model):
    """An S3 store that the cluster downloads from."""

    bucket: str = Field(min_length=3, max_length=63, description="Bucket of the weights.")
    endpoint: str | None = Field(
        default=None, pattern=r"^https?://[^/?#@\s]+/?$", description="URL of the store; AWS when absent.",
        examples=["http://minio.minio-storage.svc:9000"],
    )  # fmt: skip
    region: str = Field(default="us-east-1", min_length=1, description="Region that requests are signed for.")
    credentials: Credentials = Field(
        default=Credentials(), description="Where the keys are found; the AWS_* variables when absent."
    )


class OciStorage(_Model):
    """An OCI registry that the cluster pulls from."""

    registry: str = Field(
        min_length=1, description="Host and path that images are pushed below.", examples=["quay.io/acme"]
    )
    credentials: Credentials = Field(default=Credentials(), description="Where the pull secret is found.")


class Storage(_Model):
    """Where weights are kept for the cluster."""

    s3: S3Storage | None = Field(default=None, description="The S3 store of s3:// weights.")
    oci: OciStorage | None = Field(default=None, description="The registry of oci:// weights.")


class Variant(_Model):
    """How a model is quantised and served. Each variant is one service."""

    name: Label = Field(description="Short name: int4, bf16, fp8.")
    weights: WeightsText = Field(
        description="Where the cluster finds the weights: s3://bucket/prefix/ or oci://registry/name:tag."
    )
    pool: Label = Field(description="Name of the pool that serves it.")
    source: SourceText | None = Field(
        default=None,
        description="Where the weights come from: a folder, hf://owner/name, s3:// or oci://. Absent: in place.",
    )
    service: ServiceName | None = Field(default=None, description="Name of the service; <model>-<variant> when absent.")
    served_name: str | None = Field(
        default=None, min_length=1, description="Model name in API requests; the service's name when absent."
    )
    quantization: Quantization | None = Field(
        default=None, description="What the checkpoint is quantised to; absent for none."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Type of the activations."
    )
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16"] = Field(
        default="auto", description="Type of the KV cache."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, le=64, description="GPUs that share the model.")
    max_model_len: int | None = Field(
        default=None, ge=1, description="Longest request in tokens; the model's own when absent."
    )
    gpu_memory_utilization: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of each GPU's memory that vLLM takes; vLLM's default when absent.",
    )
    engine_args: dict[FlagName, EngineValue | tuple[EngineValue, ...]] = Field(
        default_factory=dict,
        description="Further vLLM flags without dashes: {tool-call-parser: mistral, enable-auto-tool-choice: true}.",
        json_schema_extra={"additionalProperties": False},  # a key that is no flag name; pydantic checks it itself
    )


class Model(_Model):
    """A model and the variants of it that are served."""

    name: Label = Field(description="Name of the model.")
    source: SourceText | None = Field(default=None, description="Source of every variant that names none.")
    variants: tuple[Variant, ...] = Field(min_length=1, description="The services of this model.")


class Queue(_Model):
    """The Kueue queue that admits the services."""

    name: Label = Field(description="LocalQueue in the stack's namespace.")
    cluster_queue: Label | None = Field(default=None, description="ClusterQueue behind it; rendered where given.")


class ModelRegistry(_Model):
    """The Kubeflow Model Registry that records what is served."""

    url: str = Field(pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$", description="URL of the registry's REST service.")
    credentials: Credentials = Field(default=Credentials(), description="Where its bearer token is found.")


class Verification(_Model):
    """What is asked of every service once it answers."""

    prompts: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        default=(), description="Asked of every variant; their answers are shown side by side."
    )
    max_tokens: int = Field(default=200, ge=1, le=4096, description="Longest answer in tokens.")


class Stack(_Model):
    """One berth.yaml."""

    api_version: Literal["modelberth.dev/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["Stack"] = Field(description="Kind of this document.")
    metadata: Metadata = Field(description="Name and namespace of the stack.")
    platform: Platform = Field(description='The serving platform: {kind: rhoai, version: "3.0"}.')
    pools: tuple[Pool, ...] = Field(min_length=1, description="The GPUs there are.")
    storage: Storage = Field(default=Storage(), description="Where weights are kept.")
    models: tuple[Model, ...] = Field(min_length=1, description="What is served.")
    queue: Queue | None = Field(default=None, description="The Kueue queue, where the cluster has one.")
    model_registry: ModelRegistry | None = Field(
        default=None, description="The model registry, where the cluster has one."
    )
    verification: Verification = Field(default=Verification(), description="What is asked once the services answer.")
