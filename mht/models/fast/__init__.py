"""What needs private calls of PyTorch to be fast."""
