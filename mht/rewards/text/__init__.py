"""Rewards that read the text alone: words, form, overlap with the target."""
