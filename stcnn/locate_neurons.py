"""Find where new neurons look and how strongly they answer, from a few stimuli and a trained run.

    python locate_neurons.py --checkpoint RUN --ca-path SET/ca_traces --mov-path SET/movies

RUN is a run folder or checkpoint of train.py whose network knows the cell types of the recordings;
places in their files are not needed. Each neuron gets azimuth and elevation (degrees, with the sd
of a jackknife over stimuli), gain and offset from at most --stimuli of its stimuli. A neuron is
"not located" where dealt recordings fit as well (p of at least 0.01), the place lies at the edge of
the 12 degrees searched, or its sd is above 3 degrees. Where the run's training set is at hand,
what its own neurons are off by is taken from the places (--calibration none: as the network sees).
Writes neurons.csv (a row per neuron), neurons.png and settings.json.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults

DEFAULT_OUT = RESULTS_DIR / "neurons"
STIMULI = 20  # of each neuron


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder or checkpoint file")
    add("--config", type=Path, default=None, help="config.json, default beside the checkpoint")
    add("--ca-path", type=Path, required=True, help="recordings of the new neurons")
    add("--mov-path", type=Path, required=True, help="the movies that they saw")
    add("--stimuli", type=int, default=STIMULI, help="of each neuron, at most")
    add("--nan", choices=("reject", "drop_trial"), default="reject",
        help="what to do with trials that hold NaN")  # fmt: skip
    add("--calibration", choices=("auto", "none"), default="auto",
        help="auto: by the neurons of the run's training set, where it is at hand")  # fmt: skip
    add("--out", type=Path, default=None, help="folder; default: one per checkpoint")
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if args.stimuli < 3:
        parser.error(f"--stimuli {args.stimuli}: expected at least 3")
    return args


@one_line_faults
def main(argv=None):
    """Locate every neuron, write the table and say how many have a place."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from runs.locating import locate_all

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(locate_all(args, DEFAULT_OUT))


if __name__ == "__main__":
    main()
