"""What a model folder says: its shape and quantisation from config.json, its tensors from safetensors headers.

Pure: bytes and numbers in, facts or a refusal out. A header or an index that lies is refused here, before
any byte moves and before any engine starts.
"""
