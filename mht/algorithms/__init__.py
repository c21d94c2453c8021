"""What one training step does: supervised fine-tuning and PPO."""
