"""The stack: everything `berth.yaml` can say, as strict frozen models. The JSON Schema comes from here.

Field descriptions are what an editor shows while the user types. A secret value has no field anywhere:
credentials are references.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, StringConstraints

from modelberth.spec.cluster import Access, ArgoCd, Delivery, ModelRegistry, Platform, Pool, Queue
from modelberth.spec.fields import (
    EngineValue,
    FlagName,
    Label,
    Quantization,
    ServiceName,
    ShownText,
    SizeText,
    SourceText,
    Strict,
    WeightsText,
)
from modelberth.spec.storage import Storage


class Metadata(Strict):
    """Names of the whole stack."""

    name: Label = Field(description="Name of the stack; the rendered tree is gitops/<name>/.")
    namespace: Label = Field(default="default", description="Namespace of the services on the cluster.")


class Resources(Strict):
    """What one replica asks of its node beside GPUs."""

    cpu: FiniteFloat | None = Field(default=None, gt=0, le=1024, description="Processors it is given for sure.")
    cpu_limit: FiniteFloat | None = Field(default=None, gt=0, le=1024, description="Processors it may take at most.")
    memory: SizeText | None = Field(default=None, description="Main memory it is given for sure.", examples=["32GiB"])
    memory_limit: SizeText | None = Field(default=None, description="Main memory it may take at most.")


class Prefill(Strict):
    """Prefill on pods of its own, beside those that decode."""

    replicas: int = Field(default=1, ge=1, le=1000, description="Pods that prefill.")
    tensor_parallel_size: int = Field(default=1, ge=1, le=64, description="GPUs of each.")


class Variant(Strict):
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
    data_parallel_size: int = Field(
        default=1, ge=1, le=256,
        description="Copies of the attention layers, over several nodes too; kind LLMInferenceService only.",
    )  # fmt: skip
    replicas: int = Field(default=1, ge=0, le=1000, description="Pods that answer; 0 keeps the service and stops it.")
    prefill: Prefill | None = Field(default=None, description="Prefill apart from decode; LLMInferenceService only.")
    scheduler: bool = Field(
        default=True, description="llm-d's scheduler picks the replica of a request; LLMInferenceService only."
    )
    display_name: ShownText | None = Field(
        default=None, description="Name in the dashboard; the service's when absent."
    )
    weights_size: SizeText | None = Field(
        default=None,
        description="Size of the weights: for probes, memory and disk; what the GPUs hold at most when absent.",
        examples=["47.2GB"],
    )
    resources: Resources = Field(
        default=Resources(), description="Processors and memory; from the GPUs and the instance type when absent."
    )
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


class Model(Strict):
    """A model and the variants of it that are served."""

    name: Label = Field(description="Name of the model.")
    kind: Literal["InferenceService", "LLMInferenceService"] = Field(
        default="InferenceService",
        description="What it becomes on the cluster: KServe's InferenceService, or llm-d's LLMInferenceService.",
    )
    description: ShownText | None = Field(default=None, description="One sentence for the dashboard and the registry.")
    source: SourceText | None = Field(default=None, description="Source of every variant that names none.")
    variants: tuple[Variant, ...] = Field(min_length=1, description="The services of this model.")


class Verification(Strict):
    """What is asked of every service once it answers."""

    prompts: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        default=(), description="Asked of every variant; their answers are shown side by side."
    )
    max_tokens: int = Field(default=200, ge=1, le=4096, description="Longest answer in tokens.")


class Stack(Strict):
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
    delivery: Delivery | None = Field(default=None, description="Upload from within the cluster, where wanted.")
    access: Access = Field(default=Access(), description="Who reaches the services; the cluster alone when absent.")
    argo_cd: ArgoCd | None = Field(default=None, description="The Argo CD Application, where wanted.")
    verification: Verification = Field(default=Verification(), description="What is asked once the services answer.")
