"""Find when a spreading depression reaches each pixel, where it starts and how fast it runs.

No network takes part. Recipe: 2 s moving average; d = (trace - median) / median; the peak of a
pixel is the 99th percentile of d; its onset is the first frame after which d stays above half the
peak for 5 s; arrival = a * distance + b is fitted for every candidate origin, the origin with the
least median absolute residual is kept, and the speed is pixel size / a.

    python onset.py --data data/csd_darnn/demo/movie.tif    # scales from the file
    python onset.py --data movie.tif --frame_rate_hz 10 --pixel_um 44

Reads a movie (F, H, W). Writes into ``--out_dir``: onset.json (numbers), plots/onset_map.png and
plots/onset_map.csv (pixel, row, column, arrival in s, peak dF/F, distance from the origin in mm).
What the file does not tell and no flag gives stays in frames and pixels: arrival_frame,
distance_pixel, speed in pixel/frame.
Source: specification, section 13, item 4.
"""

from pathlib import Path

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
BAD_FRAMES = RunSettings.bad_frames  # 3,17-20; none; empty = frames of one colour
OUT_DIR = RESULTS_DIR / "onset"
# recipe
SMOOTH_S = OnsetSettings.smooth_s  # moving average
HOLD_S = OnsetSettings.hold_s  # d has to stay above half the peak this long
SMOOTH_FRAMES = OnsetSettings.smooth_frames  # both where the frame rate is not known
HOLD_FRAMES = OnsetSettings.hold_frames
BOOTSTRAP = OnsetSettings.bootstrap  # resamplings of pixels for the interval of the speed
SEED = OnsetSettings.seed

FLAGS = {
    "DATA": Flag(Path, "movie"),
    "OUT_DIR": Flag(Path, "folder that the results go to"),
    **{name.upper(): flags_of(RunSettings)[name.upper()] for name in SCALE_NAMES},
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
