"""From judgements to a reward model."""
