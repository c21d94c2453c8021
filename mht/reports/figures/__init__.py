"""Figures as PNG bytes."""
