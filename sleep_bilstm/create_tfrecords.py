"""Cut recordings (.mat) into normalised epochs and store them in TFRecord shards.

Follows section 2.2 of the paper's preprocessing (specification section 5).
    python create_tfrecords.py --data_path ../data/sleep_bilstm/raw --des_path
    ../data/sleep_bilstm/10s python create_tfrecords.py --data_path RAW --des_path OUT --seconds 20
    --downsample 4 --workers 2
Reads `<date>-<mouse>-fc<n>*.mat` (data 128 x 128 x 168 x E). Writes below --des_path, per mouse
folder `<date>/`: `<date>-<mouse>-fc<n>_<S>s.tfrecord` (masked pixels x frames, float32),
`.index.json`, and one `dataset.json`; with --reference_format the published
`<base>_epoch<k>.tfrecords` instead.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults
from inputs import storage

SECONDS = storage.SECONDS  # length of an input, 1 to 30


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
