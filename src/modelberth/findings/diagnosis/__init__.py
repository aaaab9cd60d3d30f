"""Failures by their signatures: what a log, events, conditions and container states say, as ranked findings.

signatures/*.yaml, catalogue, signature    the data, how it is read, its form
records, scan, start, marks                a log to its starts, each with what it raised and how it went on
matching, wording, context                 a record against patterns; texts with the numbers of the case
objects, described, belonging              what Kubernetes objects say; objects out of pasted text; of which service
ranking, fitting                           root first, consequences folded under it; what would fit by the plan
diagnose, finding, documents               the way in, what comes out, and its forms for programs
"""
