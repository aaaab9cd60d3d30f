"""OCI registries: manifests, blobs by range or as a stream, and uploads that go on where they were.

Sources: OCI distribution specification 1.1; Docker's token and credential-helper documents. What differs between
registries is said where it is dealt with.
"""

from modelberth.adapters.registry.client import RangesUnsupported, Registry
from modelberth.adapters.registry.connection import RegistryOptions

__all__ = ["RangesUnsupported", "Registry", "RegistryOptions"]
