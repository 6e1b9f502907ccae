"""Put everything that a run has written on one page: report.html, and summary.json behind it.

    python run_report.py --run demo      # write the report of results/csd_darnn/demo/ again

Reads settings.json, metrics.json, log.csv, onset.json, plots/*.png and the small GIF of a run's
folder; what a run has not made is left out. Writes report.html (self-contained) and summary.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults
from settings import Flag, parse

RUN = "demo"  # folder of the run in results/csd_darnn/, or a path

FLAGS = {"RUN": Flag(str, "name or folder of a finished run")}


@one_line_faults
def main(argv=None):
    """Write the report of a finished run again."""
    chosen = parse(argv, __doc__.split("\n")[0], globals(), FLAGS)
    from runs.run_report import rewrite_report

    print(rewrite_report(chosen.run))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
