"""Transformers' models: the frozen trunk, passes without padding, logits, the cache."""
