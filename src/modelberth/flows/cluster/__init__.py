"""Verbs on a cluster: what is there, how far it is, what to change."""
