"""Responses from a policy: sampling, and decoding strategies."""
