"""Print our time and memory beside those of a plain loop, written as the published code works.

    python benchmark.py [--only preprocess flow augment predict guided step]

Makes its data in a temporary folder, writes results/rvf_twostream/benchmark/benchmark.json and
prints a table. Each measurement has a process of its own; the fastest of some calls counts, in CPU
seconds of all threads (flow: wall time, which needs idle cores). A baseline must give the same
numbers, which is asserted. Source: specification 12; data rows in ``benchmark_data.py``.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

from common.files import RESULTS_DIR as RESULTS
from common.files import InputError, Parser, one_line_faults, read_json, write_json
from options import add_globals, integer

# model of the rows predict and step
DEPTH = 18  # 18, 34, 50, 101 or 152
WIDTH = 8  # filters of the stem
NFRAMES = 32  # frames of a clip
NROWS = 112  # rows of a clip, pixels
NCOLS = 112  # columns of a clip, pixels
# model of the row guided: the one that specification 12 gives innvestigate's time of
GUIDED = {"depth": 18, "width": 64, "size": (8, 32, 32)}

TABLE = {
    "DEPTH": (integer(18, 152), "18, 34, 50, 101 or 152"),
    "WIDTH": (integer(1), "filters of the stem"),
    "NFRAMES": (integer(8), "frames of a clip"),
    "NROWS": (integer(32), "rows of a clip, pixels"),
    "NCOLS": (integer(32), "columns of a clip, pixels"),
}
MEASUREMENTS = ("preprocess", "flow", "augment", "predict", "guided", "step")


def two_stream_of(shape):
    """Return a two-stream model with random weights from a fixed seed, on the CPU.

    Args:
        shape: dict with depth, width and size (frames, rows, columns).
    """
    from training import start_tensorflow

    strategy = start_tensorflow(device="cpu")
    from model_zoo import two_stream

    model = two_stream(input_size=shape["size"], depth=shape["depth"], width=shape["width"])
    return model, strategy


def random_clips(shape, n):
    """Return {"grey": (n,t,r,c,1), "of": (n,t,r,c,2)}."""
    rng = np.random.default_rng(0)
    return {
        stream: rng.standard_normal((n, *shape["size"], channels)).astype(np.float32)
        for stream, channels in (("grey", 1), ("of", 2))
    }


def warm(function):
    """Return (seconds, result) of a call after one that traces and allocates."""
    from benchmark_data import fastest

    function()
    return fastest(function)


def ours_predict(shape):
    """Time five clips in one batch."""
    from training import make_forward

    forward = make_forward(two_stream_of(shape)[0])
    clips = random_clips(shape, 5)
    return warm(lambda: forward(clips))


def published_predict(shape):
    """Time five clips one by one, each with Keras' predict."""
    model, _ = two_stream_of(shape)
    clips = random_clips(shape, 5)

    def one_by_one():
        outputs = [
            model.predict([clips["grey"][k : k + 1], clips["of"][k : k + 1]], verbose=0)
            for k in range(5)
        ]
        return np.concatenate(outputs)

    return warm(one_by_one)


def ours_guided(shape):
    """Time the guided gradient of one clip."""
    from guided import guided_gradients, guided_model

    guided = guided_model(two_stream_of(shape)[0])
    clip = random_clips(shape, 1)
    return warm(lambda: guided_gradients(guided, clip))


def ours_step(shape):
    """Time one update of the weights with a batch of four clips."""
    model, strategy = two_stream_of(shape)
    import keras

    from model_zoo import make_optimizer
    from training import make_train_step

    def sample_loss(y, outputs):
        return keras.losses.binary_crossentropy(y[:, None], outputs)

    step = make_train_step(model, make_optimizer(model, 1e-4), sample_loss, strategy)
    clips, y = random_clips(shape, 4), np.array([0, 1, 0, 1], np.float32)
    weight = np.ones(4, np.float32)
    return warm(lambda: float(step(clips, y, weight, 4)[0]))


def describe(shape):
    """Return a model's shape in words."""
    size = "x".join(map(str, shape["size"]))
    return f"two-stream depth {shape['depth']}, width {shape['width']}, {size}"


def network_row(name, shape):
    """Return the row ``predict``, ``guided`` or ``step``."""
    from benchmark_data import in_own_process, row

    if name == "predict":
        ours, baseline = (in_own_process(f, shape) for f in (ours_predict, published_predict))
        np.testing.assert_allclose(ours[1], baseline[1], atol=1e-5)
        return row(f"predict a movie of 5 clips, {describe(shape)}", ours, baseline, ">= 2x")
    if name == "guided":
        ours = in_own_process(ours_guided, GUIDED)
        return row(f"guided gradient of a clip, {describe(GUIDED)}", ours, target="< 1 s")
    ours = in_own_process(ours_step, shape)
    rate = f"{4 * shape['size'][0] / ours[0]:.0f} pictures/s"
    return row(f"training step of 4 clips, {describe(shape)}: {rate}", ours)


def machine():
    """Return one line about this machine."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def print_table(rows):
    """Print the rows, one a line."""
    keys = ("ours_s", "baseline_s", "ratio", "ours_mb", "baseline_mb")
    print(*(f"{text:>11}" for text in ("ours, s", "plain, s", "ratio", "ours, MB", "plain, MB")))
    for entry in rows:
        cells = ["-" if entry[key] is None else f"{entry[key]:.3f}" for key in keys[:3]]
        cells += ["-" if entry[key] is None else f"{entry[key]:.0f}" for key in keys[3:]]
        target = f" (target {entry['target']})" if entry["target"] else ""
        print(*(f"{cell:>11}" for cell in cells), f" {entry['what']}{target}")


@one_line_faults
def main(argv=None):
    """Measure, print the table and write it."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", default=MEASUREMENTS, choices=MEASUREMENTS, help="measure these only"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    add_globals(parser, globals(), TABLE)
    args = parser.parse_args(argv)
    if args.depth not in (18, 34, 50, 101, 152):
        raise InputError(f"--depth {args.depth}: choose 18, 34, 50, 101 or 152")
    shape = {
        "depth": args.depth,
        "width": args.width,
        "size": (args.nframes, args.nrows, args.ncols),
    }
    from benchmark_data import BENCHES

    path = RESULTS / "benchmark" / "benchmark.json"
    # Rows of an earlier call stay: flow wants idle cores, the others do not mind.
    earlier = read_json(path)["rows"] if path.exists() else []
    found = {name: [entry for entry in earlier if entry["name"] == name] for name in MEASUREMENTS}
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in MEASUREMENTS if name in args.only]:
            print(f"measuring {name}", flush=True)
            if name in BENCHES:
                found[name] = BENCHES[name](Path(folder))
            else:
                found[name] = [network_row(name, shape)]
    rows = [{"name": name, **entry} for name, entries in found.items() for entry in entries]
    write_json(path, {"machine": machine(), "rows": rows})
    print_table(rows)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
