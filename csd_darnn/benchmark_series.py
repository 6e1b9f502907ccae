"""Train and test on the two series of the DA-RNN paper: SML2010 and an excerpt of NASDAQ 100.

Follows Qin et al. 2017, tables 1 and 2, with the options that reach the paper's numbers
(specification, sections 1 and 6.5).

    python benchmark_series.py --real_dir ../data/csd_darnn/real
    python benchmark_series.py --real_dir DIR --n_epochs 2

Reads NEW-DATA-1.T15.txt and NEW-DATA-2.T15.txt (SML2010, 4,137 rows),
nasdaq100_padding_first4517.csv.gz (4,517 rows x 82) and nasdaq_T10_m64_weights.npz (weights of a
public derivative). What is absent is left out and named. Writes
results/csd_darnn/benchmark_series/series.csv and series.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, one_line_faults
from settings import Flag, parse

# Data
REAL_DIR = DATA_DIR / "real"  # folder with the files named above

# Training
N_EPOCHS = 150
SEEDS = 1  # seeds 0 .. SEEDS-1
NASDAQ_EPOCHS = 0  # 0 = the excerpt is not trained on, only its weights are tested
ATTENTION = "tanh"  # tanh, linear
DEVICE = "auto"

FLAGS = {
    "REAL_DIR": Flag(Path, "folder with the files of the two series"),
    "N_EPOCHS": Flag(int, "epochs on SML2010", low=1),
    "SEEDS": Flag(int, "number of seeds", low=1),
    "NASDAQ_EPOCHS": Flag(int, "epochs on the NASDAQ excerpt, 0 = none", low=0),
    "ATTENTION": Flag(str, "input attention", ("tanh", "linear")),
    "DEVICE": Flag(str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps"),
}


@one_line_faults
def main(argv=None):
    """Run what the folder holds, print and write the table."""
    chosen = parse(argv, __doc__.splitlines()[0], globals(), FLAGS)
    from demo.series import run_what_is_there

    run_what_is_there(chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
