"""Proximal policy optimisation (arXiv:1707.06347) of a language model."""
