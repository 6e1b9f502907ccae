"""Pre-train the optical flow stream on ejection fractions (specification 7.1).

    python pretrain_OF.py --root EchoNet-Dynamic --ckptdir C
    python pretrain_OF.py --root ../data/rvf_twostream/demo/echonet --depth 18 --epoch 2

Reads <root>/{train,val}_norm_OF/*.npy (n, rows, columns, 2) and <root>/filename2class.json; see
``pretrain.py`` for classification and for the files written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults
from runs.pretrain_flags import check_pretraining, pretrain_parser
from settings import FLOW_MODEL_PREFIX, PRETRAIN, Settings

# data
NFRAMES = PRETRAIN.NFRAMES  # frames of a clip
NROWS = PRETRAIN.NROWS  # rows of a movie, pixels
NCOLS = PRETRAIN.NCOLS  # columns of a movie, pixels

# training
BATCH_SIZE = PRETRAIN.BATCH_SIZE  # clips per update
EPOCH = PRETRAIN.EPOCH  # passes over the training set
LR = PRETRAIN.LR  # learning rate of the first update
COSINE_ANNEAL = PRETRAIN.COSINE_ANNEAL  # cosine from LR to 0 over all updates
LR_WEIGHT = PRETRAIN.LR_WEIGHT  # factors of LR by part of a variable's name
MODEL_PREFIX = FLOW_MODEL_PREFIX  # name of the model
CKPT_MONITOR = PRETRAIN.CKPT_MONITOR  # column that chooses the best epoch
CKPT_MODE = PRETRAIN.CKPT_MODE  # min or max


@one_line_faults
def main(argv=None):
    """Pre-train the flow stream; return the exit code."""
    args = pretrain_parser(__doc__.splitlines()[0], globals()).parse_args(argv)
    check_pretraining(args)
    from network.start import device_note, start_tensorflow

    strategy = start_tensorflow(
        seed=args.seed,
        device=args.device,
        gpus=args.gpus,
        precision=args.precision,
        cluster=True,
    )
    print(device_note(strategy, args.device))
    from runs.pretrain import train_stream

    train_stream(Settings(**vars(args)), "of", strategy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
