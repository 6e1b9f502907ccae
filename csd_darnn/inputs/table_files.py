"""A CSV as a matrix of series: row numbers and clocks among its columns are no series.

Source: specification, sections 4.2 and 4.3.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import InputError
from inputs.csv_files import ROW_NUMBERS, header_labels, number_labels, read_numbers, scan_csv
from inputs.movie import reader_faults
from inputs.scales import SECONDS, Known, Scales, check_times

TIME_NAME = re.compile(
    r"(?:time|times|timestamp|timestamps|t)(?:[_ (\[]+(?P<unit>[a-z]+)[)\]]?)?|frame|frames|seconds"
)
LEAST_ROWS = 3  # with fewer any column may grow


class Table(NamedTuple):
    """What a CSV holds: values (F, K), names, whether it is a published file, its clock."""

    values: np.ndarray
    labels: list[str]
    legacy: bool
    scales: Scales

    @property
    def of_pixels(self) -> bool:
        """Return whether the columns are pixels 0 .. K-1."""
        return self.legacy or self.labels == number_labels(len(self.labels))


def read_table(path: Path, legacy_labels: str, wanted: str) -> Table:
    """Read a CSV; ``wanted`` is --time_column: auto, none, or the name of a column."""
    with reader_faults(path):
        layout = scan_csv(path)
    labels, legacy = header_labels(path, layout, legacy_labels)
    with reader_faults(path):
        values = read_numbers(path, labels, layout)  # (F, K) float64
    if labels[0] == ROW_NUMBERS:
        values, labels = without_row_numbers(path, values, labels)
    table = Table(values, labels, legacy, Scales())
    return table if table.of_pixels else without_clocks(table, wanted, path)


def without_row_numbers(
    path: Path, values: np.ndarray, labels: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Return values and labels without a first column of row numbers (Fiji, pandas)."""
    first = values[:, 0]
    if not (len(labels) > 1 and first[0] in (0, 1) and (np.diff(first) == 1).all()):
        raise InputError(
            f"{path}: column 1 has no name and is no row number, expected a name for every column;"
            " name it, or leave row numbers out (pandas: index=False)"
        )
    return values[:, 1:], labels[1:]


def without_clocks(table: Table, wanted: str, path: Path) -> Table:
    """Return the table without the columns that are clocks or counters of frames.

    Args:
        wanted: name of the clock, none, or auto: a column that is called like a time and grows in
            every row, or one that grows in even steps.
    """
    values, labels = table.values, table.labels
    if wanted == "none":
        return table
    if wanted != "auto":
        if wanted not in labels:
            raise InputError(
                f"{path}: found no column {wanted!r}, expected the one that --time_column names"
            )
        check_times(values[:, labels.index(wanted)], path)
        clocks = [labels.index(wanted)]
    else:
        clocks = [c for c, name in enumerate(labels) if counts_time(values[:, c], name)]
    if not clocks or len(clocks) == len(labels):
        return table
    # The clock whose unit is known tells most.
    clocks.sort(key=lambda column: unit_of(labels[column]) is None)
    scales = clock_scales(labels[clocks[0]], values[:, clocks[0]])
    if len(clocks) > 1:
        rest = ", ".join(labels[column] for column in clocks[1:])
        scales = Scales(**{**vars(scales), "note": f"{scales.note}; {rest} neither"})
    kept = np.setdiff1d(np.arange(len(labels)), clocks)
    return table._replace(
        values=values[:, kept], labels=[labels[column] for column in kept], scales=scales
    )


def counts_time(column: np.ndarray, name: str) -> bool:
    """Return whether a column grows in every row, and in even steps unless its name says time."""
    steps = np.diff(column)
    if not len(steps) or not (steps > 0).all():
        return False
    if TIME_NAME.fullmatch(name.lower()):
        return True
    return len(column) > LEAST_ROWS and float(np.ptp(steps)) <= 1e-3 * float(np.median(steps))


def unit_of(name: str) -> float | None:
    """Return the seconds in the unit that the name of a column tells, or None."""
    told = TIME_NAME.fullmatch(name.lower())
    if told and name.lower() == "seconds":
        return 1.0
    return SECONDS.get((told and told["unit"]) or "")


def clock_scales(name: str, times: np.ndarray) -> Scales:
    """Return the Scales that a clock tells; without a unit it tells the order of rows only."""
    factor = unit_of(name)
    if not factor:
        return Scales(note=f"column {name} is a clock of unknown unit and no driving series")
    times, origin = times * factor, f"file: column {name}"
    return Scales(
        rate_hz=Known(1 / float(np.median(np.diff(times))), origin),
        frame_times_s=Known(times, origin),
        note=f"column {name} is the clock and no driving series",
    )
