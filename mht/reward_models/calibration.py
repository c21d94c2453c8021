"""Accuracy and calibration of a reward model on held-out judgements."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

BINS = 10
Row = dict[str, float]


def calibration(probabilities: Sequence[float], outcomes: Sequence[float]) -> list[Row]:
    """For each filled bin of a probability: mean prediction, observed share, share of the whole.

    Ten equal bins, as in Guo et al. 2017 (arXiv:1706.04599).
    """
    rows = []
    for b in range(BINS):
        members = [
            (p, y)
            for p, y in zip(probabilities, outcomes, strict=True)
            if min(int(p * BINS), BINS - 1) == b
        ]
        if members:
            rows.append(
                {
                    "predicted": sum(p for p, _ in members) / len(members),
                    "observed": sum(y for _, y in members) / len(members),
                    "share": len(members) / len(outcomes),
                }
            )
    return rows


def calibration_error(rows: Sequence[Row]) -> float:
    """The expected calibration error of `calibration`'s bins (arXiv:1706.04599)."""
    return sum(row["share"] * abs(row["predicted"] - row["observed"]) for row in rows)


def rated_quality(positive: Sequence[float], labels: Sequence[int]) -> tuple[Row, list[Row]]:
    """Of P(positive): accuracy, area under the ROC curve, Brier score, calibration; its bins."""
    from sklearn.metrics import brier_score_loss, roc_auc_score

    right = [(p > 0.5) == bool(y) for p, y in zip(positive, labels, strict=True)]
    bins = calibration(positive, labels)
    return {
        "accuracy": sum(right) / len(right),
        "auc": float(roc_auc_score(labels, positive)),
        "brier": float(brier_score_loss(labels, positive)),
        "calibration_error": calibration_error(bins),
        "held_out_texts": float(len(labels)),
    }, bins


def labelled_quality(shares: Tensor, labels: Sequence[int]) -> tuple[Row, list[Row]]:
    """Of (N, classes) probabilities: accuracy, Brier score, calibration; its bins.

    The Brier score is the squared error summed over the classes (Brier 1950), in [0, 2]. The bins
    compare the likeliest class's probability with how often that class is right.
    """
    sure, likeliest = shares.max(-1)
    right = [int(a == b) for a, b in zip(likeliest.tolist(), labels, strict=True)]
    errors = shares.double().clone()
    errors[range(len(labels)), list(labels)] -= 1
    bins = calibration(sure.tolist(), right)
    return {
        "accuracy": sum(right) / len(right),
        "brier": float((errors**2).sum(-1).mean()),
        "calibration_error": calibration_error(bins),
        "held_out_texts": float(len(labels)),
    }, bins


def compared_quality(chosen: Tensor, rejected: Tensor) -> tuple[Row, list[Row]]:
    """Of the (N,) scores of held-out pairs: accuracy, Brier score, calibration; its bins.

    The probability is that of Bradley and Terry, ``sigmoid(chosen - rejected)``. The bins compare
    the probability of the answer that the model prefers, at least 0.5, with how often people
    preferred it. A draw counts as half right.
    """
    ahead = chosen.double() - rejected.double()
    p = ahead.sigmoid()
    right = (ahead > 0).double() + 0.5 * (ahead == 0)
    bins = calibration(p.maximum(1 - p).tolist(), right.tolist())
    both = chosen.double(), rejected.double()
    return {
        "accuracy": float(right.mean()),
        "brier": float(((1 - p) ** 2).mean()),
        "calibration_error": calibration_error(bins),
        "score_chosen": float(both[0].mean()),
        "score_rejected": float(both[1].mean()),
        "held_out_pairs": float(len(ahead)),
    }, bins
