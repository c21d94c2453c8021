"""Rewards of truth: claims, and the evidence for them in a corpus."""
