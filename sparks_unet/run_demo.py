"""The name under which the demo is specified: the same as ``python main.py --demo``.

    python run_demo.py
    python run_demo.py --fresh --seed 1

Files read and written: see main.py.
"""

import sys

from main import main

if __name__ == "__main__":
    raise SystemExit(main(["--demo", *sys.argv[1:]]))
