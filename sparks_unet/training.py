"""Train the 3D U-Net of a configuration file, validate it, and continue interrupted runs.

Follows section 7 of the specification (training of the paper, Cell Calcium 2024, 102893).

    python training.py config_files/final_model.ini          # the published setting
    python training.py config_files/demo.ini --resume        # go on where a run stopped
    torchrun --nproc_per_node 4 training.py config_files/final_model.ini

Reads: the INI file; per movie NN ``NN_video.tif`` (T, H, W), ``NN_class_label.tif`` and
``NN_event_label.tif`` (same shape).
Writes to results/sparks_unet/<run_name>/: settings.json, params.json, config.ini, log.txt,
loss.csv, metrics.csv, network_/optimizer_/scheduler_/rng_<iteration>.pth.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import InputError, one_line_faults
from settings.flags import base_parser, configured

SHOWN = ("average/detected", "average/correctly_classified", "total/detected")


def make_parser():
    """Return the parser of the command line."""
    parser = base_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint of this run"
    )
    parser.add_argument("--dry-run", action="store_true", help="print settings and sizes only")
    return parser


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    args = make_parser().parse_args(argv)
    params = configured(args)
    from runs.train import (
        calibrations,
        dry_run,
        own_split,
        prepare,
        resumed,
        run,
        write_record,
    )
    from runs.training_tools import set_up_logging

    set_up_logging(params)
    params = own_split(params)

    if args.dry_run:
        dry_run(params)
        return 0
    if not (params.training or params.testing):
        raise InputError(f"{args.config}: training = no and testing = no; set one of them to yes")
    todo = resumed(params) if args.resume else params
    if not todo.training and not todo.load_epoch:
        raise InputError(
            f"{args.config}: [training] load_epoch = 0 and training = no; a validation needs a "
            "trained network: set load_epoch or use --resume"
        )
    place, train, val = prepare(todo, device=args.device, threads=args.threads)
    if place.first:
        samples = [*(train or []), *val]
        write_record(params, samples, calibration=calibrations(samples))
    result = run(todo, place, train, val, resuming=args.resume)
    for name in SHOWN if result else ():
        value = result[0].get(name)
        print(f"{name}: {'n/a' if value is None else f'{value:.3f}'}")
    print(f"results in {params.output_dir}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
