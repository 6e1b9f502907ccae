"""Make a synthetic calcium movie of a cortical spreading depression with planted truth.

A target pixel repeats, 3 frames later, the private events of a driver patch; a depression wave
crosses the field near the end. Rates and amplitudes follow the literature named in the
specification, section 4.5; the recipe is its table.

    python make_demo.py                          # the demo's movie, 18 x 23 pixels, 3,000 frames
    python make_demo.py --height 72 --width 91   # the size of the published recording

Writes into ``--out_dir`` (default data/csd_darnn/demo/):
    movie.tif   (n_frames, height, width) float32, arbitrary fluorescence units
    truth.json  what was planted: target, driver mask, origin, speed, arrival frame of every pixel
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, one_line_faults
from settings import DemoMovie, Flag, flags_of, parse, published, taken

# movie
HEIGHT = DemoMovie.height  # pixels; the published size is 72
WIDTH = DemoMovie.width  # pixels; the published size is 91
N_FRAMES = DemoMovie.n_frames
FRAME_RATE_HZ = DemoMovie.frame_rate_hz
FIELD_MM = DemoMovie.field_mm  # width of the field of view
# planted truth
TRAIN_CSD = (
    DemoMovie.train_csd
)  # True adds a wave at a quarter of the record, inside the training part
DEPRESSION = DemoMovie.depression  # True scales spontaneous events by 0.2 for 120 s behind the wave
DRIVER = (
    DemoMovie.driver
)  # False is the negative control: the patch does not carry what the target repeats
# run
SEED = DemoMovie.seed
OUT_DIR = DATA_DIR / "demo"

FLAGS = flags_of(DemoMovie) | {"OUT_DIR": Flag(Path, "folder that the files are written to")}

PUBLISHED = dict.fromkeys(("make_demo", "synthesise"), "demo.synthetic")


def __getattr__(name):
    """Find a published function in its module."""
    return published(__name__, PUBLISHED, name)


@one_line_faults
def main(argv=None):
    """Write the demo's movie and truth as the flags say."""
    chosen = parse(argv, __doc__.split("\n")[0], globals(), FLAGS)
    from demo.synthetic import make_demo

    truth = make_demo(chosen.out_dir, taken(DemoMovie, chosen))
    print(f"{chosen.out_dir / truth['movie']}: {chosen.n_frames} frames, target {truth['target']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
