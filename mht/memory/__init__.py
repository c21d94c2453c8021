"""What the trainer remembers of its attempts, and what it practises for it."""
