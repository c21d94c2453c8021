"""Hyperparameter search on validation data, with Optuna (Akiba et al. 2019, arXiv:1907.10902)."""
