"""Pre-train the optical flow stream on ejection fractions (specification 7.1).

    python pretrain_OF.py --root EchoNet-Dynamic --ckptdir C
    python pretrain_OF.py --root ../data/rvf_twostream/demo/echonet --depth 18 --epoch 2

Reads <root>/{train,val}_norm_OF/*.npy (n, rows, columns, 2) and <root>/filename2class.json; see
``pretrain.py`` for classification and for the files written.
"""

import sys

from common.files import one_line_faults
from pretrain import run_script

# data
NFRAMES = 32  # frames of a clip
NROWS = 112  # rows of a movie, pixels
NCOLS = 112  # columns of a movie, pixels

# training
BATCH_SIZE = 8  # clips per update
EPOCH = 100  # passes over the training set
LR = 1e-3  # learning rate of the first update
COSINE_ANNEAL = True  # cosine from LR to 0 over all updates
LR_WEIGHT = {"conv3d": 1, "fc_6": 1, "fc_7": 1}  # factors of LR by part of a variable's name
# Differs: the published script has the name of the grey one, so each would overwrite the other.
MODEL_PREFIX = "Resnet152_Echonet_norm_OF_Oct15_"  # name of the model
CKPT_MONITOR = "val_loss"  # column that chooses the best epoch
CKPT_MODE = "min"  # min or max


@one_line_faults
def main(argv=None):
    """Pre-train the flow stream; return the exit code."""
    return run_script(__doc__.splitlines()[0], globals(), "of", argv)


if __name__ == "__main__":
    sys.exit(main())
