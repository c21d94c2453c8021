"""The heads of a policy: the value head, and those that packages add."""
