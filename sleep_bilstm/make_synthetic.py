"""Write synthetic wide-field recordings with planted sleep states, in the published .mat form.

Follows specification section 4.7 (bouts: Soltani et al. 2019, McShane et al. 2010; delta band:
Brier et al. 2019).
    python make_synthetic.py --out ../data/sleep_bilstm/synthetic
    python make_synthetic.py --mice 2 --minutes 10 --size 32 --snr 0.6 --rem_boost 0.5
Reads nothing. Writes `<out>/<date>/<date>-S<i>-fc<n>-synthetic.mat` (data size x size x 168 x E,
scoringindex_file E x 1, xform_mask size x size), beside each a `.truth.npz`, and
`<out>/truth.json`. The brain mask and the parcels are drawn here, without the published atlas.
"""

import importlib
import logging
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import Parser, one_line_faults
from demo.synthetic import FLAG_HELP, OUT, Plan, check_plan, make_data_set


def __getattr__(name):
    """Return what users import from this script; it lives in demo/synthetic.py."""
    return getattr(importlib.import_module("demo.synthetic"), name)


def build_parser() -> Parser:
    """Return the command line: --out and one flag per field of Plan."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write")
    for field in fields(Plan):
        flag = f"--{field.name}"
        if field.type is bool:
            parser.add_argument(
                flag, action="store_true", default=field.default, help=FLAG_HELP[field.name]
            )
        else:
            parser.add_argument(
                flag, type=field.type, default=field.default, help=FLAG_HELP[field.name]
            )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


@one_line_faults
def main(argv: list[str] | None = None) -> None:
    """Write the data set that the flags describe."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = build_parser().parse_args(argv)
    plan = Plan(**{field.name: getattr(args, field.name) for field in fields(Plan)})
    check_plan(plan)
    paths = make_data_set(args.out, plan)
    logging.info("%d recordings of %d mice in %s", len(paths), plan.mice, args.out)


if __name__ == "__main__":
    main()
