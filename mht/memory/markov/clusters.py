"""Prompts in groups of like meaning: k-means of their embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cluster(
    embeddings: NDArray[Any], clusters: int, *, seed: int, iterations: int = 20
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group rows by k-means with k-means++ starts (Arthur & Vassilvitskii 2007).

    The same data and seed give the same groups on one machine. Another machine may round otherwise,
    so whoever goes on from saved work keeps the groups with it.

    Args:
        embeddings: (N, D), one row per prompt; not empty.
        clusters: how many groups at most: there are no more than different rows, and a group that
            lost its last row is dropped.
        seed: of the first centroids.
        iterations: of Lloyd's algorithm.

    Returns:
        (N,) group of each row, 0 to C - 1; (C,) the row nearest to each group's mean.

    Raises:
        ValueError: no rows, or no clusters.
    """
    import warnings

    from scipy.cluster.vq import kmeans2

    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != 2 or not len(points) or clusters < 1:
        raise ValueError("k-means needs an (N, D) array with rows, and at least one cluster")
    count = min(clusters, len(np.unique(points, axis=0)))
    random = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # dropped below
        _, labels = kmeans2(points, count, iter=iterations, minit="++", rng=random)
    _, groups = np.unique(labels, return_inverse=True)
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    return groups.astype(np.int64), np.array([rows[_central(points[rows])] for rows in members])


def _central(points: NDArray[np.float64]) -> int:
    """Which of the points is nearest to their mean."""
    return int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())
