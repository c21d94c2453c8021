"""Tasks: the data, the reward and the settings of each in a folder of its own."""
