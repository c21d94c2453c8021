"""Causal language models with what PPO adds to them, and the classifier for rewards."""
