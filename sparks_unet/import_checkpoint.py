"""Bring released weights into a run folder and test them on a synthetic movie with planted truth.

Follows sections 6.1 and 13.9 of the specification.

    python import_checkpoint.py saved_models.zip.001 saved_models.zip.002
    python import_checkpoint.py network_100000.pth --config config_files/final_model.ini

Reads: a network file, or a zip archive (whole, or its parts in order) that holds
``network_<iteration>.pth``; the INI file that describes the network.
Writes to results/sparks_unet/<run_name>/: ``network_<iteration>.pth`` (bare parameter names),
``self_test.json`` (the movie, the checks, events planted and found).
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import (
    FOLDER,
    InputError,
    Parser,
    one_line_faults,
    plain_name,
    seed_number,
    sha256,
    write_json,
)
from settings.read_config import load_config

CONFIG = FOLDER / "config_files" / "final_model.ini"
SIZE = (64, 512)  # rows, columns of a published frame


def make_parser():
    """Return the parser of the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "files", nargs="+", type=Path, help="network_<iteration>.pth, a zip archive, or its parts"
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="INI file of the network")
    parser.add_argument("--member", help="network file inside the archive, if it holds several")
    parser.add_argument("--run-name", help="name of the run's folder, instead of [training]")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of the synthetic movie")
    parser.add_argument("--height", type=int, default=SIZE[0], help="rows of that movie")
    parser.add_argument("--width", type=int, default=SIZE[1], help="columns of that movie")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv=None):
    """Run the command line; return 0, or 1 when a check of the self-test fails."""
    args = make_parser().parse_args(argv)
    from runs.released_weights import import_network, network_file

    params = load_config(args.config)
    if args.run_name:
        params = dataclasses.replace(params, run_name=plain_name(args.run_name))
    if min(args.height, args.width) < 16:
        raise InputError(f"--height {args.height} --width {args.width}: expected at least 16")
    with network_file(args.files, args.member) as path:
        digest = sha256(path)
        model, target = import_network(path, params)
    print(f"weights fit the network of {args.config}: {target}")
    if not (FOLDER / "demo").is_dir():
        print("no self-test: it needs the folder demo/, which is not here")
        return 0
    from demo.self_test import self_test

    record = self_test(model, params, seed=args.seed, size=(args.height, args.width))
    record = {"network": target.name, "sha256_of_the_given_file": digest, **record}
    write_json(params.output_dir / "self_test.json", record)
    for text, passed in record["checks"].items():
        print(f"{'passed' if passed else 'FAILED'}: {text}")
    planted, detected = (sum(record[key].values()) for key in ("planted", "found"))
    print(f"{planted} events planted, {detected} found, {record['detected']:.2f} detected")
    return 0 if all(record["checks"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
