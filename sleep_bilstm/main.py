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

# what to do
MODE = settings.MODE  # what to do
RUN = settings.RUN  # name of the run, its folder in the results; from the settings when empty
SEED = settings.SEED  # seed of every random choice; negative: one is drawn and stored
DEVICE = settings.DEVICE  # where to compute: auto, cpu, gpu
DEBUG = settings.DEBUG  # show the traceback of a fault
FRESH = settings.FRESH  # start the run anew
FULL = settings.FULL  # with --demo: the larger demo

# data
DATA_PATH = settings.DATA_PATH  # folder with tfrecords; for predict also recordings
PATTERN = settings.PATTERN  # of predict: file name pattern of the recordings
MASK = settings.MASK  # of predict: file with a brain mask, for recordings without one
SPLIT_FILE = settings.SPLIT_FILE  # mice of training, validation, test
SPLIT = settings.SPLIT  # epoch (published, leaks between neighbours), block, mouse
TEST_MOUSE = settings.TEST_MOUSE  # overrides the split file; several separated by commas
LEAVE_OUT = settings.LEAVE_OUT  # take the test mice out of the training list
ALLOW_LEAK = settings.ALLOW_LEAK  # permit a test mouse that is trained on
FOLDS = settings.FOLDS  # leave-mouse-out folds; 0 is off
NUM_CLASSES = settings.NUM_CLASSES  # 2 joins NREM and REM
NUM_FRAMES = settings.NUM_FRAMES  # frames used of every record; 168 are 10 s
HEMISPHERIC = settings.HEMISPHERIC  # half of the frame only
HEMISPHERE = settings.HEMISPHERE  # which half: left, right, both-mirrored
LIMIT_TRAIN = settings.LIMIT_TRAIN  # epochs of training; 0 is all
LIMIT_VAL = settings.LIMIT_VAL  # epochs of validation; 0 is all
WORKERS = settings.WORKERS  # epochs read at the same time

# network
NUM_RNN_UNITS = settings.NUM_RNN_UNITS  # of the LSTM, per direction; 32 in the released run
NUM_FILTERS = settings.NUM_FILTERS  # of every convolution
NUM_BLOCKS = settings.NUM_BLOCKS  # of convolution and pooling, 1 to 8
KERNEL_INIT = settings.KERNEL_INIT  # glorot_uniform; he_normal leaves the chance level sooner
SPATIAL_ATTENTION = settings.SPATIAL_ATTENTION  # after the blocks
TEMPORAL_ATTENTION = settings.TEMPORAL_ATTENTION  # over time steps: lstm, dense, none
DROPOUT = settings.DROPOUT  # share of units, 0 to 0.99
MIXED_PRECISION = settings.MIXED_PRECISION  # number format of training: off, float16, bfloat16
GRAD_CHECKPOINT = settings.GRAD_CHECKPOINT  # recompute the encoder in the backward pass

# training
BATCH_SIZE = settings.BATCH_SIZE  # global, over all GPUs
NUM_EPOCHS = settings.NUM_EPOCHS  # passes over the training set
LR_INIT = settings.LR_INIT  # learning rate at the start
CONTEXT = settings.CONTEXT  # epochs on each side that a second stage sees; 0 is off (published)
LOSS = settings.LOSS  # training loss: focal, cross_entropy, poly, polyfocal
GAMMA = settings.GAMMA  # focal exponent
AVERAGE = settings.AVERAGE  # decay per step
PATIENCE = settings.PATIENCE  # epochs without improvement before training stops; 0 is off
TENSORBOARD = settings.TENSORBOARD  # also write logs for TensorBoard
MODEL_CONTINUE = settings.MODEL_CONTINUE  # resume after the last complete epoch

# results
WEIGHTS = settings.WEIGHTS  # best, last, or a path (.weights.h5 or a TensorFlow-2 checkpoint)
FRAME_CHUNK = settings.FRAME_CHUNK  # frames encoded at once outside training
SMOOTH = settings.SMOOTH  # of the predicted hypnogram: none, median, bout, hmm
MIN_CONFIDENCE = settings.MIN_CONFIDENCE  # 0 to 1: mark less certain epochs
BASELINE = settings.BASELINE  # band-power baseline beside the network in test modes
KEEP_ARTIFACTS = settings.KEEP_ARTIFACTS  # of predict: a state for every epoch
RESULT_ACTION = settings.RESULT_ACTION  # what to do with figures: save, show, both
GRADCAM_LABEL = settings.GRADCAM_LABEL  # state of the map; -1 is all
GRADCAM_METHOD = settings.GRADCAM_METHOD  # weights of the map: gradcam, gradcam++
GRADCAM_TARGET = settings.GRADCAM_TARGET  # what is differentiated: prob, logit
ONLY_CORRECT = settings.ONLY_CORRECT  # maps of correctly classified epochs only
OCCLUSION_PATCH = settings.OCCLUSION_PATCH  # pixels per side
OCCLUSION_PARCELS = settings.OCCLUSION_PARCELS  # hide pairs of atlas parcels
ATLAS = settings.ATLAS  # AtlasandIsbrain.mat, for region tables
MODEL_SAVEDIR = settings.MODEL_SAVEDIR  # folder of the weights; the run's folder when empty
LOGS_DIR = settings.LOGS_DIR  # folder of TensorBoard logs; logs/ of the run's folder when empty
RESULT_SAVEDIR = settings.RESULT_SAVEDIR  # folder of figures and tables
MODEL_NAME = settings.MODEL_NAME  # published name of --run
CONFIG = settings.CONFIG  # JSON or YAML file with any of these settings; the command line wins
MODEL = settings.MODEL  # accepted and ignored: module name in the published project
DATASET = settings.DATASET  # accepted and ignored: module name in the published project


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
