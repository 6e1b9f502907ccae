"""Predict with the saved network of a finished run, on its own recording or on a new one.

    python main_predict.py --run run
    python main_predict.py --run run --data ../data/csd_darnn/other.tif --scaler own

Reads results/csd_darnn/<run>/: encoder.torch, decoder.torch, network.json, settings.json and
scaler.json (or a published scaler.pkl). Writes into <run>/reloaded/: final_y_pred.npy (n, o) in
z-units, attention.npz, plots/final_predicted_reloaded.png and metrics.csv.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults
from settings import Flag, parse, published

# What is predicted
RUN = "run"  # folder below results/csd_darnn/, or a path
DATA = ""  # recording; "" = the one of the run
SCALER = "run"  # run = mean and scale of the run, own = new ones from the recording
PART = "test"  # test = the rows after the training part, all = every row
DEVICE = "auto"  # auto, cpu, cuda, cuda:k, mps

FLAGS = {
    "RUN": Flag(str, "folder below results/csd_darnn/, or a path"),
    "DATA": Flag(str, "recording, empty = the one of the run"),
    "SCALER": Flag(str, "mean and scale of the run or of the recording", ("run", "own")),
    "PART": Flag(str, "rows that are predicted", ("test", "all")),
    "DEVICE": Flag(str, "where to compute: auto, cpu, gpu or cuda, cuda:k, mps"),
}

PUBLISHED = {"reload_run": "runs.reloading"}


def __getattr__(name):
    """Find a published function in its module."""
    return published(__name__, PUBLISHED, name)


@one_line_faults
def main(argv=None):
    """Predict, draw and write."""
    chosen = parse(argv, __doc__.splitlines()[0], globals(), FLAGS)
    from runs.reloading import predict_again, run_folder

    predict_again(run_folder(chosen.run), chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
