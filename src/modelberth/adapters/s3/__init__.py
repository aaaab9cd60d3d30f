"""S3: the calls that delivery needs. Control calls go through botocore; weights go over connections of our own.

Checksums are ours (the manifest of files): botocore is told to compute its own only where a service requires it,
because S3-compatible stores disagree on them. A store that knows CRC-64/NVME is given it, and then refuses wrong parts
itself.
"""

from modelberth.adapters.s3.client import S3Endpoint, find_keys
from modelberth.adapters.s3.store import PendingUpload, S3Store, StoredPart, Upload

__all__ = ["PendingUpload", "S3Endpoint", "S3Store", "StoredPart", "Upload", "find_keys"]
