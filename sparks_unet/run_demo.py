"""The name under which the demo is specified: the same as ``python main.py --demo``.

    python run_demo.py
    python run_demo.py --fresh --seed 1

Files read and written: see main.py.
"""

import runpy
import sys
from pathlib import Path

MAIN = Path(__file__).resolve().parent / "main.py"


def main(argv=None):
    """Run main.py with ``--demo``."""
    sys.argv = [str(MAIN), "--demo", *(sys.argv[1:] if argv is None else argv)]
    runpy.run_path(str(MAIN), run_name="__main__")


if __name__ == "__main__":
    main()
