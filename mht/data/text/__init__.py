"""Texts: cleaning, words, conversations, and the one definition of their tokens."""
