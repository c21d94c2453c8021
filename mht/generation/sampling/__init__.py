"""Sampling: how a policy draws its responses, and rollouts."""
