"""The flags that every script with an INI file has, and the settings that they give."""

import argparse
import dataclasses
from pathlib import Path

from common.files import FOLDER, Parser, plain_name, seed_number
from settings.config import Params
from settings.read_config import load_config
from settings.recording import Given, add_recording_flags, given_by_flags


def base_parser(description: str) -> Parser:
    """Return a parser with the arguments that every script with an INI file has."""
    parser = Parser(description=description)
    parser.add_argument("config", type=Path, help="INI file, e.g. config_files/final_model.ini")
    parser.add_argument("--run-name", help="name of the run; default: [training] run_name")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu", "cuda"),
        default="auto",
        help="where to compute: auto, cpu, gpu or cuda",
    )
    parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's choice")
    parser.add_argument(
        "--seed", type=seed_number, help="seed of every random choice; default: [training] seed"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="section.key=value",
        help="replace one setting; repeatable",
    )
    add_recording_flags(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


def with_given(params: Params, given: Given) -> Params:
    """Return ``params`` in which what flags say about the recordings wins over the INI file."""
    names = {"pixel_um": "pixel_size_um"}
    changes = {names.get(name, name): getattr(given, name) for name in given.flagged}
    if "cell_mask" in changes:
        changes["cell_mask"] = str(given.cell_mask)
    return dataclasses.replace(params, **changes, flagged=given.flagged)


def configured(args: argparse.Namespace) -> Params:
    """Return Params of the parsed command line."""
    overrides = list(args.overrides)
    if args.run_name is not None:
        overrides.append(f"training.run_name={plain_name(args.run_name)}")
    if args.seed is not None:
        overrides.append(f"training.seed={args.seed}")
    path = args.config
    if not path.is_file() and (FOLDER / path).is_file():
        path = FOLDER / path
    return with_given(load_config(path, overrides), given_by_flags(args))
