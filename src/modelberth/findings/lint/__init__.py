"""Rules for anybody's manifests: what will not start, loses data or lies, with the line, the reason and the fix. Pure.

`world` is what rules look at, `rules` what they are made of; each module of rules has the ids of one hundred. An id is
never used for something else: who ignores one must be able to rely on it.
"""
