"""Time and memory of our routes beside a plain loop of what the published code does.

    python benchmark.py
    python benchmark.py --only layer_1000 --device cuda
    python benchmark.py --beside ../../old/stcnn    (a checkout of commit 3fb0cf6)

The baseline is written from the specification (section 10, D5): a 900-tap depthwise conv1d over
frames padded on both sides, every read-out of every type at all nine positions, padding by
concatenation. Each case runs in a process of its own; both sides must give the same numbers, which
is asserted. Writes results/stcnn/benchmark/benchmark.json and prints the table; with --beside the
table of the two checkouts, and beside.json.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from common.files import RESULTS_DIR, Parser, one_line_faults

OUT = RESULTS_DIR / "benchmark"
CASES = {
    "layer_1000": ("temporal layer, forward and backward, T = 1000", ">= 100x"),
    "layer_2000": ("temporal layer, forward and backward, T = 2000", ">= 50x"),
    "tau_2000": ("gradient of tau, float32 beside float64, T = 2000", "error < 5e-4"),
    "step_1000": ("whole training step, T = 1000, batch 1", ">= 25x"),
    "eval_1000": ("evaluating forward, T = 1000", ">= 20x"),
    "item": ("building one item, 1985 x 83 x 83", "< 10 ms"),
    "stream": ("prediction of a long movie, frames per second", ">= 180 frames/s"),
}


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--device", choices=("cpu", "gpu", "cuda"), default="cpu")
    parser.add_argument("--beside", default=None, help="stcnn folder of another checkout: compare")
    parser.add_argument("--case", default=None, help="one side in this process (used by itself)")
    parser.add_argument("--side", choices=("ours", "baseline"), default="ours")
    parser.add_argument("--file", default=None, help="where --case writes")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    args.device = "cuda" if args.device == "gpu" else args.device
    return args


@one_line_faults
def main(argv=None):
    """Run the cases and write the table."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from demo.benchmark_cases import compare, machine_line, record, run_case

    if args.case:
        run_case(args.case, args.side, args.device, args.file)
        return
    machine = machine_line(args.device)
    if args.beside:
        from demo.beside import report_beside

        report_beside(args.beside, machine, OUT / "beside.json")
        return
    print(
        f"{'what':50} {'ours':>10} {'baseline':>10} {'ratio':>7} {'MB':>7} {'MB base':>8}  target"
    )
    for name in args.only:
        what, target = CASES[name]
        row = compare(name, args.device, what=what, target=target)
        record(OUT / "benchmark.json", machine, row, [case for case, _ in CASES.values()])
        print(
            f"{row['what']:50} {row['ours_s']:9.4f}s {row['baseline_s']:9.4f}s "
            f"{row['ratio']:6.1f}x "
            f"{row['ours_mb']:7.0f} {row['baseline_mb']:8.0f}  {row['target']}",
            flush=True,
        )
    print(json.dumps({"written": str(OUT / "benchmark.json")}))


if __name__ == "__main__":
    main()
