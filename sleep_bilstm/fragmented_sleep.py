"""Bouts and transitions of a hypnogram: how fragmented the sleep is.

Python port of the published fragmented_sleep.m; specification section 8.5.
    python fragmented_sleep.py ../results/sleep_bilstm/run/200128_10s.csv
    python fragmented_sleep.py 200128_10s.mat --key y_trues --ignore_gaps
Reads a CSV (columns epoch, run, and pred or true) or .mat (y_preds, y_trues 1 x N; run, epoch).
Prints the table and writes `<file>_bouts.csv` and `<file>_bouts.json` into --out.
"""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, Parser, atomic_path, one_line_faults, write_json
from states import EPOCH_S, STATE_NAMES

KEY = "pred"  # column or variable with the states
IGNORE_GAPS = (
    False  # join what dropped artifacts and run borders separate, as the published script does
)


def stretches(recording: np.ndarray, epoch: np.ndarray) -> list[slice]:
    """Return the slices of consecutive epochs (N,) of one recording (N,)."""
    if len(epoch) == 0:
        return []
    breaks = np.flatnonzero((np.diff(recording) != 0) | (np.diff(epoch) != 1)) + 1
    edges = [0, *breaks.tolist(), len(epoch)]
    return [slice(a, b) for a, b in pairwise(edges)]


def sleep_statistics(
    labels: np.ndarray, parts: list[slice] | None = None, *, epoch_s: float = EPOCH_S
) -> dict:
    """Return bouts per state, transitions and transition counts.

    Args:
        labels: (N,) states 0 wake, 1 NREM, 2 REM in time order.
        parts: stretches without a gap; a bout ends where a stretch ends. All of it when None.
        epoch_s: length of an epoch in s.

    Returns:
        dict: per state name bouts (lengths in epochs), n, mean_s, median_s, max_s (NaN when
            absent), total_s, percent; transitions; pair_counts (3, 3) with i to i included;
            probabilities (3, 3); transitions_per_hour.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise InputError("the hypnogram is empty; expected at least one epoch")
    names = STATE_NAMES[3]
    bouts = {state: [] for state in range(len(names))}
    pairs = np.zeros((len(names), len(names)), int)
    for part in parts or [slice(None)]:
        piece = labels[part]
        edges = np.flatnonzero(np.diff(piece)) + 1
        for bout in np.split(piece, edges):
            bouts[int(bout[0])].append(len(bout))
        np.add.at(pairs, (piece[:-1], piece[1:]), 1)
    transitions = int(pairs.sum() - np.trace(pairs))
    rows = pairs.sum(axis=1, keepdims=True)
    probabilities = np.divide(pairs, rows, out=np.full(pairs.shape, np.nan), where=rows > 0)
    result = {
        "transitions": transitions,
        "transitions_per_hour": transitions / (labels.size * epoch_s / 3600),
        "pair_counts": pairs,
        "probabilities": probabilities,
    }
    for state, name in enumerate(names):
        seconds = np.array(bouts[state]) * epoch_s
        result[name] = {
            "bouts": bouts[state],
            "n": len(bouts[state]),
            "mean_s": float(seconds.mean()) if seconds.size else math.nan,
            "median_s": float(np.median(seconds)) if seconds.size else math.nan,
            "max_s": float(seconds.max()) if seconds.size else math.nan,
            "total_s": float(seconds.sum()),
            "percent": 100 * float((labels == state).mean()),
        }
    return result


def first_line(statistics: dict) -> str:
    """Return the line of the published script: mean seconds per state and the transitions."""
    means = [statistics[name]["mean_s"] for name in STATE_NAMES[3]]
    shown = ", ".join(
        f"{name} {'-' if math.isnan(mean) else round(mean)} s"
        for name, mean in zip(STATE_NAMES[3], means, strict=True)
    )
    return f"mean bout: {shown}; transitions: {statistics['transitions']}"


def statistics_table(statistics: dict) -> pd.DataFrame:
    """Return one row per state."""
    keys = ("n", "mean_s", "median_s", "max_s", "total_s", "percent")
    return pd.DataFrame(
        [{"state": name, **{k: statistics[name][k] for k in keys}} for name in STATE_NAMES[3]]
    )


def as_json(statistics: dict) -> dict:
    """Return the statistics as plain values, NaN as None."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, list):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return plain(statistics)


def read_states(path: Path, key: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Read states, run and epoch numbers from a CSV or .mat result; run and epoch are None when
    absent.
    """
    from utils import read_label_vectors

    names = {"pred": "y_preds", "true": "y_trues"}
    column = names.get(key, key) if path.suffix.lower() == ".mat" else key
    labels = read_label_vectors(path, [column])[0]
    try:
        if path.suffix.lower() == ".mat":
            import scipy.io

            held = scipy.io.loadmat(path)
            run, epoch = (np.ravel(held[k]).astype(int) for k in ("run", "epoch"))
        else:
            table = pd.read_csv(path)
            run, epoch = table["run"].to_numpy(), table["epoch"].to_numpy()
    except KeyError:
        return labels, None, None
    return labels, run, epoch


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "file", type=Path, help="result of --mode test_subjectwise or predict, CSV or .mat"
    )
    parser.add_argument(
        "--key", default=KEY, help="pred, true, or the name of a column or variable"
    )
    parser.add_argument(
        "--epoch_seconds", type=float, default=EPOCH_S, help="length of an epoch in s"
    )
    parser.add_argument(
        "--ignore_gaps", action="store_true", default=IGNORE_GAPS, help="as the published script"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="folder to write; beside the file when absent"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Print and write the statistics of one hypnogram."""
    args = build_parser().parse_args(argv)
    labels, run, epoch = read_states(args.file, args.key)
    scored = labels >= 0
    parts = None
    if run is not None and not args.ignore_gaps:
        parts = stretches(run[scored], epoch[scored])
    statistics = sleep_statistics(labels[scored], parts, epoch_s=args.epoch_seconds)
    table = statistics_table(statistics)
    print(first_line(statistics))
    print(table.to_string(index=False, na_rep="-", float_format="%.1f"))
    out = args.out or args.file.parent
    with atomic_path(out / f"{args.file.stem}_bouts.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_json(out / f"{args.file.stem}_bouts.json", as_json(statistics))


if __name__ == "__main__":
    main()
