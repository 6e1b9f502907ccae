"""Time and memory of this project beside plain loops written as the specification describes them.

    python benchmark.py                               # everything: about 10 minutes on 2 cores
    python benchmark.py --only assembly postprocessing
    python benchmark.py --only sharing --peers plain monai    # MONAI: requirements-peers.txt

Reads nothing. Writes results/sparks_unet/benchmark/benchmark.json and prints its table. Where a
baseline is given, both sides give the same numbers, or the benchmark stops.

Source: specification section 12.
"""

import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults, write_json

INFERENCE_STRIDE = 128  # 7 chunks of the 904-frame movie instead of 22
SHARING_FRAMES = 904
SHARING_STRIDES = (32, 64, 128)
PEERS = ("plain", "monai")
PARTS = ("postprocessing", "assembly", "forward", "training", "inference")


@one_line_faults
def main(argv=None):
    """Run the command line; return the exit code."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        *("--only", "--parts"),
        dest="only",
        nargs="+",
        choices=(*PARTS, "sharing"),
        default=list(PARTS),
        help="measure these only; sharing (minutes for each stride) runs when it is named",
    )
    parser.add_argument("--threads", nargs="+", type=int, help="CPU threads; default 1 and all")
    parser.add_argument("--stride", type=int, default=INFERENCE_STRIDE, help="of the prediction")
    parser.add_argument("--strides", nargs="+", type=int, default=SHARING_STRIDES, help="sharing")
    parser.add_argument(
        "--frames", type=int, default=SHARING_FRAMES, help="of the movie of sharing"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["plain"], help="of sharing")
    parser.add_argument("--against", type=Path, help="sharing: another build of sparks_unet")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "benchmark")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    from demo.benchmark_cases import all_rows, own_cores, print_table

    rows = all_rows(
        [part for part in args.only if part in PARTS], threads=args.threads, stride=args.stride
    )
    if "sharing" in args.only:
        from demo.benchmark_sharing import sharing_rows

        way = {"strides": args.strides, "against": args.against, "peers": args.peers}
        rows += sharing_rows(args.frames, threads=(args.threads or [1])[0], **way)
    machine = f"{platform.processor() or platform.machine()}, {own_cores()} cores"
    write_json(args.out / "benchmark.json", {"machine": machine, "rows": rows})
    print_table(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
