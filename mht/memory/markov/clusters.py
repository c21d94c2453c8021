"""Groups prompts of similar meaning by k-means on their embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cluster(
    embeddings: NDArray[Any], clusters: int, *, seed: int, iterations: int = 20
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group rows by k-means with k-means++ starts (Arthur & Vassilvitskii 2007).

    The same data and seed give the same groups on one machine. Another machine may round
    differently, so saved work includes its groups.

    Args:
        embeddings: (N, D), one row per prompt; not empty.
        clusters: maximum number of groups. There are at most as many as different rows, and an
            empty group is dropped.
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
    """The index of the point nearest to the mean."""
    return int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())
