"""Processes: whether one was launched beside others, and how each ends."""
