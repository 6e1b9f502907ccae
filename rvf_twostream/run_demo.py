"""The demo: synthetic patients with planted RV function, every step, the planted truth found again.

    python run_demo.py [--quick]        the same as: python main.py --demo [--quick]

Writes the cohort and an EchoNet look-alike below data/rvf_twostream/<run>/, results as main.py
does, and beside them scores against the planted truth: TAPSE decides the failure (truth.json),
heart rate does not (negative control). Source: specification 4.7 and 8.4.
"""

import runpy
import sys
from pathlib import Path

MAIN = Path(__file__).resolve().parent / "main.py"


def main(argv=None):
    """Run main.py with ``--demo``, as a user starts it."""
    sys.argv = [str(MAIN), "--demo", *(sys.argv[1:] if argv is None else argv)]
    runpy.run_path(str(MAIN), run_name="__main__")


if __name__ == "__main__":
    main()
