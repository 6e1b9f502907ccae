"""Time post-processing and evaluation against the plain computation of the specification.

The baseline works as section 12 of the specification describes the published code: whole-movie
masks for every event. Both must give the same numbers, or the benchmark stops with an error.

    python benchmark_postprocessing.py
    python benchmark_postprocessing.py --frames 128     # quick

Files read and written: none; ``benchmark.py`` puts these rows into benchmark.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults, seed_number
from settings.recording import COUNT

STANDARD = (904, 64, 512)


@one_line_faults
def main(argv=None):
    """Print the comparison."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=COUNT, default=STANDARD[0], help="length of the movie")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of the movie")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from demo.plain_postprocessing import rows

    for row in rows((args.frames, *STANDARD[1:]), args.seed):
        print(
            f"{row['what']:48} {row['ours_s']:8.2f} s {row['baseline_s']:8.2f} s "
            f"{row['ratio']:8.1f}x (target {row['target'] or '-'}), "
            f"{row['ours_mb'] or '-'} MB against {row['baseline_mb'] or '-'} MB"
        )


if __name__ == "__main__":
    main()
