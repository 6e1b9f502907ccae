"""Cut recordings into inputs longer than 10 s: create_tfrecords.py with 20 s by default.

Any length is possible with --seconds.
    python create_tfrecords_over_10s.py --data_path RAW --des_path OUT
Reads and writes what create_tfrecords.py does.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults
from inputs import storage

SECONDS = 20  # 84 frames of each neighbouring epoch


def __getattr__(name):
    """Return what users import from this script; it lives in inputs/tfrecords.py."""
    return getattr(importlib.import_module("inputs.tfrecords"), name)


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Convert the recordings that the flags name."""
    args = storage.build_parser(__doc__.split("\n")[0], SECONDS).parse_args(argv)
    from inputs.tfrecords import convert

    convert(args)


if __name__ == "__main__":
    main()
