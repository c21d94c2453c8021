"""Tasks: the data of each, and its reward where it has one, in a folder of its own."""
