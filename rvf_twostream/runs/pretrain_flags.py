"""The command line of the two pre-training scripts; it imports no framework."""

import argparse
from pathlib import Path

from common.files import RESULTS_DIR, InputError, Parser
from settings import (
    PRETRAIN,
    add_device_flags,
    add_globals,
    add_model_flags,
    check_prefix,
    number,
    one_of,
)


def pretrain_parser(description: str, values: dict) -> Parser:
    """Return the parser of a pre-training script whose globals are ``values``."""
    parser = Parser(description=description)
    parser.add_argument(
        "-d", "--root", type=Path, required=True, help="folder of prepare_echonet.py"
    )
    parser.add_argument(
        "-c", "--ckptdir", type=Path, help=f"folder to write to (default {RESULTS_DIR}/NAME)"
    )
    parser.add_argument(
        "-r", "--recalculate", action="store_true", help="start afresh, keeping the old run"
    )
    parser.add_argument(
        "--init_weights", default="none", help="weights that start the trunk, or none"
    )
    parser.add_argument(
        "--task",
        type=one_of("regression", "classification"),
        default="regression",
        help="regression of the ejection fraction, or classification with --labels",
    )
    parser.add_argument("--labels", type=Path, help="CSV with file and class, for classification")
    parser.add_argument(
        "--ef_bias", type=number(0, 100), default=0.0, help="start of the head's bias, percent"
    )
    parser.add_argument(
        "--standardize_ef", action="store_true", help="train on z-scores of the ejection fraction"
    )
    add_globals(parser, values, PRETRAIN)
    add_model_flags(parser)
    add_device_flags(parser)
    return parser


def check_pretraining(args: argparse.Namespace) -> None:
    """Raise an InputError for flags that do not go together."""
    if not args.root.is_dir():
        raise InputError(f"{args.root}: no such folder; --root names the data set")
    if (args.task == "classification") != (args.labels is not None):
        raise InputError("--task classification and --labels FILE belong together")
    if args.ef_bias and (args.standardize_ef or args.task == "classification"):
        raise InputError("--ef_bias is in percent: not with --standardize_ef or classification")
    if args.standardize_ef and args.task == "classification":
        raise InputError("--standardize_ef has no meaning in classification")
    wrong = {"regression": ("val_accuracy",), "classification": ("val_mae", "val_r2")}[args.task]
    if args.ckpt_monitor in wrong:
        raise InputError(f"--ckpt_monitor {args.ckpt_monitor} does not exist in {args.task}")
    check_prefix(args.model_prefix)
    if args.ckptdir is None:
        args.ckptdir = RESULTS_DIR / args.model_prefix.rstrip("_")
