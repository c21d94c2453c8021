"""Tasks: the data, rewards and settings of each, in a folder of its own."""
