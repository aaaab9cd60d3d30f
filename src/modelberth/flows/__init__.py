"""The verbs as functions: a typed request in, a typed result out, progress through one small listener.

Nothing here prints. The command line and, later, the pages call these.
"""
