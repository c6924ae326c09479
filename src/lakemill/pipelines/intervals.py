"""Confidence intervals: exact ones of shares (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934), and of ratios.

Those of ratios are percentiles of the bootstrap (B. Efron, The Annals of Statistics 7, 1979) over independent pieces.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 60  # halvings: more than a float's precision
RESAMPLES = 1000


def upper_bound(count: int, trials: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a share, of which ``count`` of ``trials`` were seen; 1 without trials.

    It is the share ``p`` at which so few or fewer are seen with a probability of ``1 - confidence``.
    """
    if count >= trials:
        return 1.0
    low, high, ways = count / trials, 1.0, _log_ways(count, trials)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(ways, trials, middle) > 1 - confidence else (low, middle)
    return high


def lower_bound(count: int, trials: int, confidence: float = 0.95) -> float:
    """Return the one-sided lower bound of a share; 0 without trials."""
    return 1 - upper_bound(trials - count, trials, confidence)


@lru_cache(4096)
def interval(count: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of a share: each side with half of what confidence leaves."""
    side = 1 - (1 - confidence) / 2
    return lower_bound(count, trials, side), upper_bound(count, trials, side)


def ratio_interval(above: NDArray[Any], below: NDArray[Any], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval of the ratio of two sums over the same pieces; None for fewer than two pieces.

    Args:
        above: What is summed above the line, a number for each piece.
        below: And below it.
        confidence: Of the interval.
    """
    if len(above) < 2:
        return None
    random = np.random.default_rng(0)  # the same table gives the same interval
    drawn = (random.integers(0, len(above), len(above)) for _ in range(RESAMPLES))
    ratios = [above[some].sum() / below[some].sum() for some in drawn]
    side = (1 - confidence) / 2
    low, high = np.quantile(ratios, [side, 1 - side])
    return float(low), float(high)


def _at_most(ways: np.ndarray, trials: int, share: float) -> float:
    """Return the probability that fewer than ``len(ways)`` of ``trials`` are seen, at a share."""
    if share <= 0 or share >= 1:
        return float(share <= 0)
    seen = np.arange(len(ways))
    return float(np.exp(ways + seen * math.log(share) + (trials - seen) * math.log1p(-share)).sum())


def _log_ways(count: int, trials: int) -> np.ndarray:
    """Return the logarithms of the ways to see 0 to ``count`` of ``trials``."""
    seen, factorials = np.arange(count + 1), _log_factorials(trials)
    ways: np.ndarray = factorials[trials] - factorials[seen] - factorials[trials - seen]
    return ways


@lru_cache(8)
def _log_factorials(most: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
