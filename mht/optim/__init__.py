"""Optimisers, learning-rate schedules and float32 master weights."""
