"""Compare the metrics of two runs on the same movies."""

from pathlib import Path

from analysis.metrics_tools import are_counts, metrics_from_counts
from analysis.resampling import compare_runs
from common.files import InputError, read_json


def read_counts(path: Path) -> dict[str, dict]:
    """Return {movie id: counts} of a metrics.json."""
    remedy = "expected the metrics.json of a run; predict again"
    counts = read_json(path, remedy=remedy).get("counts")
    if counts is None:
        raise InputError(f"{path}: no counts of movies in it; predict again")
    if not isinstance(counts, dict) or not counts or not all(map(are_counts, counts.values())):
        raise InputError(f"{path}: the counts of its movies are damaged; predict again")
    return counts


def comparison_lines(first_path: Path, second_path: Path, *, draws: int, seed: int) -> list[str]:
    """Return the lines of the CSV: metric, difference, 95 % interval over movies.

    Args:
        first_path, second_path: metrics.json of two runs.
        draws: resamplings of the movies.
        seed: of the resampling.
    """
    first, second = read_counts(first_path), read_counts(second_path)
    if first.keys() != second.keys():
        raise InputError(
            f"{second_path}: movies {' '.join(second)}, expected those of the first run: "
            f"{' '.join(first)}"
        )
    metrics = metrics_from_counts(list(first.values()))
    names = [name for name, value in metrics.items() if isinstance(value, float)]
    counts = list(first.values()), [second[name] for name in first]
    differences = compare_runs(*counts, names, draws=draws, seed=seed)
    lines = ["metric,difference,low_95,high_95"]
    return lines + [f"{n}," + ",".join(f"{v:.4f}" for v in differences[n]) for n in names]
