"""What changes weights: the SFT and PPO steps, their optimiser, and the loop over both."""
