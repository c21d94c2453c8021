"""How SFT and reinforcement learning share a training run."""
