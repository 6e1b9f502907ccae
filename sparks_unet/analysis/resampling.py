"""Intervals of metrics and differences of runs, by drawing movies with replacement."""

import numpy as np

from analysis.metrics_tools import leaves, metrics_from_counts, with_leaves


def bootstrap_intervals(
    counts: list[dict], names: list[str], *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple]:
    """Return intervals of metrics when movies are drawn with replacement.

    Args:
        counts: list of dicts of movie_counts, one for each movie.
        names: metrics, as named by metrics_from_counts.
        draws: number of resamplings.
        seed: of the generator.
        level: covered share.

    Returns:
        {name: (low, high)}; (None, None) where the metric is never defined.
    """
    rng = np.random.default_rng(seed)
    table = np.array([leaves(one) for one in counts], np.int64)  # (movies, leaves)
    values = {name: [] for name in names}
    for _ in range(draws):
        chosen = rng.integers(len(counts), size=len(counts))
        summed = with_leaves(counts[0], iter(table[chosen].sum(axis=0).tolist()))
        metrics = metrics_from_counts([summed])
        for name in names:
            if metrics[name] is not None and name not in metrics["not_available"]:
                values[name].append(metrics[name])
    edges = (50 * (1 - level), 50 * (1 + level))
    return {
        name: tuple(float(v) for v in np.percentile(drawn, edges)) if drawn else (None, None)
        for name, drawn in values.items()
    }


def compare_runs(
    counts: list[dict],
    other_counts: list[dict],
    names: list[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, tuple]:
    """Return the difference of two runs on the same movies with its bootstrap interval.

    Args:
        counts, other_counts: lists of dicts of movie_counts, same movies in the same order.
        names: metrics.
        draws: number of resamplings; both runs see the same movies in each.
        seed: of the generator.

    Returns:
        {name: (difference, low, high)}, other run minus the first.
    """
    rng = np.random.default_rng(seed)
    samples = [np.arange(len(counts))]
    samples += [rng.integers(len(counts), size=len(counts)) for _ in range(draws)]
    differences = {name: [] for name in names}
    for chosen in samples:
        first = metrics_from_counts([counts[i] for i in chosen])
        second = metrics_from_counts([other_counts[i] for i in chosen])
        for name in names:
            differences[name].append((second[name] or 0.0) - (first[name] or 0.0))
    return {
        name: (drawn[0], *(float(v) for v in np.percentile(drawn[1:], (2.5, 97.5))))
        for name, drawn in differences.items()
    }
