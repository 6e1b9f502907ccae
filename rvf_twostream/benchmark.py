"""Print our time beside that of a plain loop, as the specification describes the published code.

    python benchmark.py [--depth 18] [--width 8]

Writes results/rvf_twostream/benchmark/benchmark.json and prints a table. Baselines of reading, flow
and augmentation are in ``benchmark_data.py``; each baseline must give the same numbers. Ours is
measured after one warm-up call. Source: specification 12.
"""

import os
import platform
import sys

import numpy as np

from files import RESULTS, Parser, one_line_faults, write_json
from options import add_device_flags, add_globals, integer

# model
DEPTH = 18  # 18, 34, 50, 101 or 152
WIDTH = 8  # filters of the stem
NFRAMES = 32  # frames of a clip
NROWS = 112  # rows of a clip, pixels
NCOLS = 112  # columns of a clip, pixels

TABLE = {
    "DEPTH": (integer(18, 152), "18, 34, 50, 101 or 152"),
    "WIDTH": (integer(1), "filters of the stem"),
    "NFRAMES": (integer(8), "frames of a clip"),
    "NROWS": (integer(32), "rows of a clip, pixels"),
    "NCOLS": (integer(32), "columns of a clip, pixels"),
}


def warm(function):
    """Return (shortest time in seconds, result) after one call that traces and allocates."""
    from benchmark_data import fastest

    function()
    return fastest(function)


def model_rows(args):
    """Return the rows of the network: five clips in one batch, training step, guided gradient."""
    from benchmark_data import row
    from training import start_tensorflow

    strategy = start_tensorflow(seed=args.seed, device=args.device)
    import keras

    from guided import guided_gradients, guided_model
    from model_zoo import make_optimizer, two_stream
    from training import make_forward, make_train_step

    size = (args.nframes, args.nrows, args.ncols)
    name = f"two-stream depth {args.depth}, width {args.width}, {'x'.join(map(str, size))}"
    model = two_stream(input_size=size, depth=args.depth, width=args.width)
    rng = np.random.default_rng(args.seed)
    clips = {
        stream: rng.standard_normal((5, *size, channels)).astype(np.float32)
        for stream, channels in (("grey", 1), ("of", 2))
    }
    forward = make_forward(model)
    batch_s, together = warm(lambda: forward(clips))
    baseline_s, apart = warm(
        # The published script calls Keras' predict for each clip by itself.
        lambda: np.concatenate(
            [
                model.predict([clips["grey"][k : k + 1], clips["of"][k : k + 1]], verbose=0)
                for k in range(5)
            ]
        )
    )
    np.testing.assert_allclose(together, apart, atol=1e-5)
    rows = [row(f"predict a movie (5 clips), {name}", batch_s, baseline_s, ">= 2")]
    guided = guided_model(model)
    one = {stream: values[:1] for stream, values in clips.items()}
    seconds, _ = warm(lambda: guided_gradients(guided, one))
    rows.append(row(f"guided back-propagation of a clip, {name}", seconds, target="< 1 s"))

    def sample_loss(y, outputs):
        return keras.losses.binary_crossentropy(y[:, None], outputs)

    step = make_train_step(model, make_optimizer(model, 1e-4), sample_loss, strategy)
    four = {stream: values[:4] for stream, values in clips.items()}
    y, weight = np.array([0, 1, 0, 1], np.float32), np.ones(4, np.float32)
    seconds, _ = warm(lambda: step(four, y, weight, 4))
    images = 4 * args.nframes / seconds
    rows.append(row(f"training step of 4 clips, {name} ({images:.0f} frames/s)", seconds))
    return rows


def machine():
    """Return one line about this machine."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def print_table(rows):
    """Print the rows, one a line."""
    print(f"{'ours, s':>10} {'plain, s':>10} {'ratio':>7} {'target':>8}  what")
    for entry in rows:
        cells = [
            "-" if entry[k] is None else f"{entry[k]:.3f}"
            for k in ("ours_s", "baseline_s", "ratio")
        ]
        target = entry["target"] or "-"
        print(f"{cells[0]:>10} {cells[1]:>10} {cells[2]:>7} {target:>8}  {entry['what']}")


@one_line_faults
def main(argv=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--no_data", action="store_true", help="leave out benchmark_data.py")
    add_globals(parser, globals(), TABLE)
    add_device_flags(parser)
    args = parser.parse_args(argv)
    rows = []
    if not args.no_data:
        # First: it starts processes, which is unsafe once TensorFlow is loaded.
        from benchmark_data import rows as data_rows

        rows += data_rows()
    rows += model_rows(args)
    record = {"machine": machine(), "rows": rows}
    path = RESULTS / "benchmark" / "benchmark.json"
    write_json(path, record)
    print_table(rows)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
