"""The parts of PPO that params.yaml chooses by name. They load torch when they are used."""
