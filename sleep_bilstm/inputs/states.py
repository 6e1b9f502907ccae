"""The modes of main.py: train, test, maps of where and when the network looks, and prediction.

Every function takes the resolved settings; results go to `<run>/<mode>/`. Source: specification
section 8.1.
"""

# Nominal: the files hold no rate, and 168 frames stand for 10 s of scoring. The laboratory's camera
# ran at 16.8067 Hz, so that each epoch leaves 0.07 of a frame out; no time axis counts frames.
FRAME_RATE_HZ = 16.8
RATE_ORIGIN = "nominal: 168 frames per epoch of 10 s; the files hold no rate"
FRAMES_PER_EPOCH = 168  # 10 s at 16.8 Hz
EPOCH_S = 10
MAX_SECONDS = 30  # an epoch and at most one whole neighbour on each side
WAKE, NREM, REM = 0, 1, 2
ARTIFACT_CODE = 2  # in scoringindex_file; REM is 3 there
RAW_TO_LABEL = {0: WAKE, 1: NREM, 3: REM}
LABEL_TO_RAW = {WAKE: 0, NREM: 1, REM: 3}
STATE_NAMES = {3: ("Wakefulness", "NREM", "REM"), 2: ("Wakefulness", "Sleep")}
STATE_RGB = (
    (241 / 255, 161 / 255, 5 / 255),
    (39 / 255, 125 / 255, 229 / 255),
    (38 / 255, 179 / 255, 150 / 255),
)
NO_LABEL = UNSCORED = -1
ARTIFACT = -2  # of a hypnogram; artifacts are no epochs of a data set
UNKNOWN_CODE = -9  # a score that is neither a known code nor a known word
HUMAN_KAPPA = 0.65  # human against human on EEG/EMG, Zhang et al. 2024


def seconds_of(num_frames: int) -> float:
    """Return the length of an input of ``num_frames`` frames in s, rounded to 0.1 s."""
    return round(num_frames / FRAME_RATE_HZ, 1)
