"""Classify wake, NREM and REM sleep from wide-field calcium imaging with an attention CNN-BiLSTM.

Zhang et al., Journal of Neuroscience Methods 411 (2024) 110250, arXiv 2401.08098.
    python main.py --mode train --data_path ../data/sleep_bilstm/10s --run first
    python main.py --demo
Reads tfrecords made by create_tfrecords.py (epochs of F x H x W normalised frames) and
mouse_split.json; `predict` also reads recordings (.mat). Writes to ../results/sleep_bilstm/<run>/:
settings.json, config.json, log.csv, weights, and one folder per mode with figures, CSV, .mat and
JSON. Settings are the globals below; each is a flag too.
"""

import importlib
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

import settings
from common.device import quiet_start
from common.files import one_line_faults

# Values, with meaning, unit and range, stand in settings.py; what is written here instead wins.
# what to do
MODE = settings.MODE
RUN = settings.RUN
SEED = settings.SEED
DEVICE = settings.DEVICE
DEBUG = settings.DEBUG
FRESH = settings.FRESH
FULL = settings.FULL

# data
DATA_PATH = settings.DATA_PATH
PATTERN = settings.PATTERN
MASK = settings.MASK
SPLIT_FILE = settings.SPLIT_FILE
SPLIT = settings.SPLIT
TEST_MOUSE = settings.TEST_MOUSE
LEAVE_OUT = settings.LEAVE_OUT
ALLOW_LEAK = settings.ALLOW_LEAK
FOLDS = settings.FOLDS
NUM_CLASSES = settings.NUM_CLASSES
NUM_FRAMES = settings.NUM_FRAMES
HEMISPHERIC = settings.HEMISPHERIC
HEMISPHERE = settings.HEMISPHERE
LIMIT_TRAIN = settings.LIMIT_TRAIN
LIMIT_VAL = settings.LIMIT_VAL
WORKERS = settings.WORKERS
CLUSTER = settings.CLUSTER

# network
NUM_RNN_UNITS = settings.NUM_RNN_UNITS
NUM_FILTERS = settings.NUM_FILTERS
NUM_BLOCKS = settings.NUM_BLOCKS
KERNEL_INIT = settings.KERNEL_INIT
SPATIAL_ATTENTION = settings.SPATIAL_ATTENTION
TEMPORAL_ATTENTION = settings.TEMPORAL_ATTENTION
DROPOUT = settings.DROPOUT
MIXED_PRECISION = settings.MIXED_PRECISION
GRAD_CHECKPOINT = settings.GRAD_CHECKPOINT

# training
BATCH_SIZE = settings.BATCH_SIZE
NUM_EPOCHS = settings.NUM_EPOCHS
LR_INIT = settings.LR_INIT
CONTEXT = settings.CONTEXT
LOSS = settings.LOSS
GAMMA = settings.GAMMA
AVERAGE = settings.AVERAGE
PATIENCE = settings.PATIENCE
TENSORBOARD = settings.TENSORBOARD
MODEL_CONTINUE = settings.MODEL_CONTINUE

# results
WEIGHTS = settings.WEIGHTS
FRAME_CHUNK = settings.FRAME_CHUNK
SMOOTH = settings.SMOOTH
MIN_CONFIDENCE = settings.MIN_CONFIDENCE
BASELINE = settings.BASELINE
ADAPT = settings.ADAPT
ADAPT_MINUTES = settings.ADAPT_MINUTES
CODES = settings.CODES
KEEP_ARTIFACTS = settings.KEEP_ARTIFACTS
RESULT_ACTION = settings.RESULT_ACTION
GRADCAM_LABEL = settings.GRADCAM_LABEL
GRADCAM_METHOD = settings.GRADCAM_METHOD
GRADCAM_TARGET = settings.GRADCAM_TARGET
ONLY_CORRECT = settings.ONLY_CORRECT
OCCLUSION_PATCH = settings.OCCLUSION_PATCH
OCCLUSION_PARCELS = settings.OCCLUSION_PARCELS
ATLAS = settings.ATLAS
MODEL_SAVEDIR = settings.MODEL_SAVEDIR
LOGS_DIR = settings.LOGS_DIR
RESULT_SAVEDIR = settings.RESULT_SAVEDIR
MODEL_NAME = settings.MODEL_NAME
CONFIG = settings.CONFIG
MODEL = settings.MODEL
DATASET = settings.DATASET


def resolve(argv: list[str] | None = None) -> settings.Settings:
    """Return the checked settings: the globals above, then the file of --config, then flags."""
    return settings.resolve(argv, globals(), __doc__.split("\n")[0])


@one_line_faults
def main(argv: list[str] | None = None) -> int:
    """Run the chosen mode."""
    chosen = resolve(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    for name in settings.IGNORED:
        if name in chosen.given:
            logging.info(
                "note: --%s is accepted and ignored: there is one network and one loader", name
            )
    # The demo lies in a wing of its own, which own data do not need.
    wing, function = (
        ("demo.run_demo", "run_demo") if chosen.mode == "demo" else ("runs.modes", "run_mode")
    )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_start():
        module = importlib.import_module(wing)
    return getattr(module, function)(chosen)


if __name__ == "__main__":
    sys.exit(main())
