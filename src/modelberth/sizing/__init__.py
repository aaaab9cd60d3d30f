"""Sizing: what an engine will need, from the shape of the model. Pure arithmetic in vLLM's own terms."""
