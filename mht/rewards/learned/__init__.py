"""Rewards that ask a trained model."""
