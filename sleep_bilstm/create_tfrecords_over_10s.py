"""Cut recordings into inputs longer than 10 s: create_tfrecords.py with 20 s by default.

Any length is possible with --seconds.
    python create_tfrecords_over_10s.py --data_path RAW --des_path OUT
Reads and writes what create_tfrecords.py does.
"""

from common.files import one_line_faults
from create_tfrecords import convert

SECONDS = 20  # 84 frames of each neighbouring epoch


@one_line_faults
def main(argv=None):
    """Convert the recordings that the flags name."""
    convert(argv, SECONDS)


if __name__ == "__main__":
    main()
