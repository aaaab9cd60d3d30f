"""The outside world, one part of it a module: folders, S3, OCI, engines, endpoints, processes.

Each maps foreign errors to ours; none imports another, but all may start processes through `processes`.
"""
