"""Responses from a policy: sampling, rollouts, decoding strategies."""
