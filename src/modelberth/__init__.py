"""ModelBerth: from weights to a verified OpenAI-compatible endpoint on vLLM and KServe.

The public library surface: read a stack, and run the flows behind the command line.
Nothing heavy is imported here; `modelberth.flows` holds the verbs as functions.
"""

__version__ = "0.1.0"
