"""Checkpoints: what changes while training, captured and put back exactly."""
