"""Delivery, the pure part: the manifest of files, their parts, and OCI image layers. No bytes are moved here."""
