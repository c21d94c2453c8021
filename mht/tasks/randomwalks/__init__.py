"""Random walks: shortest paths on a random graph, a task for many quick runs."""
