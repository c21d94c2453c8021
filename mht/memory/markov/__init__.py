"""Markov memory: practice follows a Markov chain that is learned from rewards."""
