"""Failures by their signatures: what a log, events, conditions and container states say, as ranked findings.

finding       what is found
signature     the form of a signature: data of signatures/*.yaml
catalogue     reads them all
records       what a log says, record by record
scan          a log to its starts, each with what it raised
objects       what Kubernetes objects say
ranking       root first, consequences folded under it
"""
