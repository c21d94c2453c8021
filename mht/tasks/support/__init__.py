"""Support: questions and answers of a dialogue, prompt to target."""
