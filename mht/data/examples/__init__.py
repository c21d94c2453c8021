"""Tokenised examples: encoding, limits, splits and batches."""
