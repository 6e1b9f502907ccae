"""The demo: synthetic patients with planted RV function, every step, the planted truth found again.

    python run_demo.py [--quick]        the same as: python main.py --demo [--quick]

Writes the cohort and an EchoNet look-alike below data/rvf_twostream/<run>/, results as main.py
does, and beside them scores against the planted truth: TAPSE decides the failure (truth.json),
heart rate does not (negative control). Source: specification 4.7 and 8.4.
"""

import subprocess
import sys

from common.files import FOLDER, one_line_faults


@one_line_faults
def main(argv=None):
    """Hand the flags to ``main.py --demo``, which is started as a user starts it."""
    words = sys.argv[1:] if argv is None else argv
    return subprocess.call([sys.executable, str(FOLDER / "main.py"), "--demo", *words])


if __name__ == "__main__":
    sys.exit(main())
