"""What `berth.yaml` says of stores: where weights are kept, and where the keys for that are found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelberth.spec.fields import Label, ShownText, Strict


class Credentials(Strict):
    """Where credentials are found. Never the credentials themselves."""

    secret: Label | None = Field(default=None, description="Name of a Kubernetes Secret in the stack's namespace.")
    profile: str | None = Field(default=None, description="Name of an AWS profile on the machine that runs berth.")


class ExternalSecret(Strict):
    """Where the External Secrets Operator finds keys of a store."""

    store: Label = Field(description="Name of the SecretStore or ClusterSecretStore.")
    store_kind: Literal["SecretStore", "ClusterSecretStore"] = Field(
        default="ClusterSecretStore", description="Kind of that store."
    )
    key: ShownText = Field(description="Entry of the store that has the keys.", examples=["llm/minio"])
    access_key_property: ShownText = Field(
        default="AWS_ACCESS_KEY_ID", description="Property of the entry that is the access key."
    )
    secret_key_property: ShownText = Field(
        default="AWS_SECRET_ACCESS_KEY", description="Property of the entry that is the secret key."
    )
    refresh_interval: str = Field(default="1h", pattern=r"^[0-9]+(s|m|h)$", description="How often it is read again.")


class S3Credentials(Credentials):
    """Where the keys of an S3 store are found, and who brings them to the cluster."""

    external_secret: ExternalSecret | None = Field(
        default=None, description="The External Secrets Operator makes the Secret from there."
    )


class S3Storage(Strict):
    """An S3 store that the cluster downloads from."""

    bucket: str = Field(min_length=3, max_length=63, description="Bucket of the weights.")
    endpoint: str | None = Field(
        default=None, pattern=r"^https?://[^/?#@\s]+/?$", description="URL of the store; AWS when absent.",
        examples=["http://minio.minio-storage.svc:9000"],
    )  # fmt: skip
    region: str = Field(default="us-east-1", min_length=1, description="Region that requests are signed for.")
    ca_config_map: Label | None = Field(
        default=None, description="ConfigMap with the private CA of the store, in the key cabundle.crt."
    )
    credentials: S3Credentials = Field(
        default=S3Credentials(), description="Where the keys are found; the AWS_* variables when absent."
    )


class OciStorage(Strict):
    """An OCI registry that the cluster pulls from."""

    registry: str = Field(
        min_length=1, description="Host and path that images are pushed below.", examples=["quay.io/acme"]
    )
    credentials: Credentials = Field(default=Credentials(), description="Where the pull secret is found.")


class Storage(Strict):
    """Where weights are kept for the cluster."""

    s3: S3Storage | None = Field(default=None, description="The S3 store of s3:// weights.")
    oci: OciStorage | None = Field(default=None, description="The registry of oci:// weights.")
