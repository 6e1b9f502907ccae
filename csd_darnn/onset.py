"""Find when a spreading depression reaches each pixel, where it starts and how fast it runs.

No network takes part. Every pixel is searched for rises that last --hold_s (5 s) and stand
--least_score (5) times out of the fluctuations of the record; the arrival is the time at which half
the rise is reached (2 s moving average). Rises that follow each other from pixel to pixel are a
wave when a front from one point, inside the field or outside, explains their arrivals (R2 of at
least 0.5 over at least 8 blocks of the field) better than in 99 % of surrogates (blocks shifted in
time). Otherwise the answer is "no wave found", with the reason. A wave that darkens needs
--polarity fall.

    python onset.py --data data/csd_darnn/demo/movie.tif    # scales from the file
    python onset.py --data movie.tif --frame_rate_hz 10 --pixel_um 44

Reads a movie (F, H, W). Writes into ``--out_dir``: onset.json (numbers), onset_waves.csv (one row
a wave: onset, speed with its 95 % interval, direction, origin, duration, area, evidence),
plots/onset_map.png and plots/onset_map.csv (pixel, row, column, arrival in s, peak dF/F, distance
from the origin in mm, local speed) of the largest wave.
What the file does not tell and no flag gives stays in frames and pixels: arrival_frame,
distance_pixel, speed in pixel/frame.
Source: specification, section 13, item 4.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import DATA_DIR, RESULTS_DIR, one_line_faults
from settings import SCALE_NAMES, Flag, OnsetSettings, RunSettings, flags_of, parse, published

# data
DATA = DATA_DIR / "demo" / "movie.tif"
FRAME_RATE_HZ = RunSettings.frame_rate_hz  # frames per second; 0 = from the file
FRAME_TIMES = RunSettings.frame_times  # file with the time in s of every frame
PIXEL_UM = RunSettings.pixel_um  # size of a pixel in micrometres; 0 = from the file
ROW_UM = RunSettings.row_um  # height of a pixel in micrometres; 0 = its width
OFFSET = RunSettings.offset  # level of darkness in units of the recording
MASK = RunSettings.mask  # picture or NPY (H, W), not 0 where the recording has data
BAD_FRAMES = RunSettings.bad_frames  # 3,17-20; file; none; auto; empty = frames of one colour
CHANNEL = RunSettings.channel  # k/n: the k-th of n channels whose frames follow each other
HAEMODYNAMIC = RunSettings.haemodynamic  # ratio, regress: correct by the other channel of a pair
CROP = RunSettings.crop  # top,left,height,width of the part that is used
AXES = RunSettings.axes  # HWF, KF: order of the axes of an array
DATASET = RunSettings.dataset  # name in an HDF5 file of several
SHAPE = RunSettings.shape  # H,W of a bare pixel CSV or matrix
OUT_DIR = RESULTS_DIR / "onset"
# recipe
SMOOTH_S = OnsetSettings.smooth_s  # moving average
HOLD_S = OnsetSettings.hold_s  # how long a rise has to last
SMOOTH_FRAMES = OnsetSettings.smooth_frames  # both where the frame rate is not known
HOLD_FRAMES = OnsetSettings.hold_frames
POLARITY = OnsetSettings.polarity  # rise, fall: which way a wave changes the light
LEAST_SCORE = OnsetSettings.least_score  # height of a rise over the fluctuations of the record
SURROGATES = OnsetSettings.surrogates  # records with shifted blocks that a wave is tested on
ERROR_RATE = OnsetSettings.error_rate  # share of them that may hold as much as a wave
BOOTSTRAP = OnsetSettings.bootstrap  # resamplings of blocks for the interval of the speed
SEED = OnsetSettings.seed

FLAGS = {
    "DATA": Flag(Path, "movie"),
    "OUT_DIR": Flag(Path, "folder that the results go to"),
    **{name.upper(): flags_of(RunSettings)[name.upper()] for name in (*SCALE_NAMES, "shape")},
    **flags_of(OnsetSettings),
}
PUBLISHED = dict.fromkeys(("onset_map", "write_onset"), "analysis.onset")


def __getattr__(name):
    """Find a published function in its module."""
    return published(__name__, PUBLISHED, name)


@one_line_faults
def main(argv=None):
    """Make the onset map of one movie."""
    chosen = parse(argv, __doc__.split("\n")[0], globals(), FLAGS)
    from analysis.onset import find_onset

    find_onset(chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
