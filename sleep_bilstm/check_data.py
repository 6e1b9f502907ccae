"""List the recordings of a folder and what is wrong with them, before any hour is spent.

    python check_data.py --data_path ../data/sleep_bilstm/raw
    python check_data.py --data_path ../data/sleep_bilstm/raw --table check.csv
Reads `<date>-<mouse>-fc<n>*.mat`. Prints one line per recording and writes the table as CSV when
asked; exit code 2 when a recording cannot be used.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, Parser, atomic_path, one_line_faults, raise_faults
from recordings import Recording, find_recordings, map_labels, size_faults
from states import ARTIFACT_CODE, STATE_NAMES

PATTERN = "*.mat"
log = logging.getLogger(__name__)


def check_recording(path: Path, *, mask_file: Path | None, signals: bool) -> dict:
    """Return one row: epochs, frame, pixels in the mask, counts per state, NaN and infinite values.

    Args:
        path: recording.
        mask_file: mask for recordings without one.
        signals: read every epoch and count missing values; otherwise only the header is read.
    """
    with Recording(path, mask_file=mask_file) as recording:
        n, height, width = recording.shape
        row = {
            "file": path.name,
            "mouse": recording.name.date,
            "run": recording.name.run,
            "epochs": n,
        }
        row.update(rows=height, columns=width, mask_pixels=int(recording.mask.sum()))
        if recording.raw_labels is not None:
            labels = map_labels(recording)
            row.update(
                {name: int((labels == state).sum()) for state, name in enumerate(STATE_NAMES[3])}
            )
            row["artifacts"] = int((recording.raw_labels == ARTIFACT_CODE).sum())
        if signals:
            values = [recording.read(epoch) for epoch in range(n)]
            missing = np.array([np.isnan(value).mean() for value in values])
            row["nan_percent"] = round(100 * missing.mean(), 3)
            row["epochs_mostly_nan"] = int((missing > 0.5).sum())
            row["infinite_values"] = int(sum(np.isinf(value).sum() for value in values))
    return row


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data_path", type=Path, required=True, help="folder with recordings, searched recursively"
    )
    parser.add_argument("--mice", nargs="+", default=[], help="date codes; all when absent")
    parser.add_argument("--pattern", default=PATTERN, help="file name pattern of the recordings")
    parser.add_argument(
        "--mask", type=Path, default=None, help="mask file for recordings without a mask"
    )
    parser.add_argument(
        "--headers_only", action="store_true", help="do not read the frames to look for NaN"
    )
    parser.add_argument("--table", type=Path, default=None, help="CSV file to write")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Print the table of all recordings, then fail with all faults in one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = build_parser().parse_args(argv)
    rows, faults, sizes = [], [], {}
    for path in find_recordings(args.data_path, mice=args.mice, pattern=args.pattern):
        try:
            rows.append(check_recording(path, mask_file=args.mask, signals=not args.headers_only))
            sizes[path] = rows[-1]["rows"], rows[-1]["columns"]
        except InputError as error:
            faults.append(str(error))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if args.table:
        with atomic_path(args.table) as temporary:
            table.to_csv(temporary, index=False)
    raise_faults(faults + size_faults(sizes))


if __name__ == "__main__":
    main()
