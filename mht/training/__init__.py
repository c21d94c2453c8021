"""The training loop, practice, checkpoints and validation."""
