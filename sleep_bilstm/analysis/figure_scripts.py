"""What the scripts that draw a figure share: their last flags, and showing what is drawn."""

from collections.abc import Iterable
from pathlib import Path

from common.figures import show_picture
from common.files import Parser


def add_figure_flags(parser: Parser) -> Parser:
    """Add --show and --debug to a command line; return it."""
    parser.add_argument("--show", action="store_true", help="open the picture")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


def present(paths: Iterable[Path], show: bool) -> None:
    """Print where the pictures lie and, with ``show``, open them."""
    for path in paths:
        print(path)
        if show:
            show_picture(path)
