"""Decoding strategies: how a policy draws its responses."""
