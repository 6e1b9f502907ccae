"""Show where a network looks: attention maps of its gates, and Grad-CAM of one class.

Follows section 8.12 of the specification; attention gates: Oktay et al. 2018; Grad-CAM: Selvaraju
et al. 2017.

    python attention_maps.py config_files/github_unet_attention.ini --ids 05 --start 100
    python attention_maps.py config_files/demo.ini --run-name demo --ids 13 --class-name puffs

Reads: INI file, ``network_<iteration>.pth``, one movie (T, H, W).
Writes to <run>/attention/: ``<id>_<start>_<map>.tif`` float32 (D, H, W) for every map of the chunk
and ``<id>_<start>_maps.png`` with its CSV: the frame where the class is likeliest.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import one_line_faults
from settings.config import EVENT_CLASSES
from settings.flags import base_parser, configured
from settings.recording import WHOLE


def make_parser():
    """Return the parser of the command line."""
    parser = base_parser(__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="network file; else run name and epoch")
    parser.add_argument("--load-epoch", type=int, help="iteration to load")
    parser.add_argument("--ids", nargs=1, required=True, help="movie of the data folder")
    parser.add_argument("--start", type=WHOLE, default=0, help="first frame of the chunk")
    parser.add_argument("--class-name", choices=EVENT_CLASSES, default="sparks")
    parser.add_argument("--layer", help="layer of Grad-CAM; default: the last block")
    return parser


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    params = configured(args)
    from runs.explanation import explain
    from runs.prediction import find_checkpoint
    from runs.training_tools import set_up_logging

    set_up_logging(params)
    path, _ = find_checkpoint(params, checkpoint=args.checkpoint, load_epoch=args.load_epoch)
    picture = explain(
        *(params, path, args.ids[0]),
        start=args.start,
        class_name=args.class_name,
        layer=args.layer,
        device=args.device,
        threads=args.threads,
    )
    print(picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
