"""Markov memory: practice moves along a chain that is learned from rewards."""
