"""Tokenised examples: encoding, limits, splits, batches, and training data of library users."""
