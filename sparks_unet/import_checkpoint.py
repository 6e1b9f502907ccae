"""Bring released weights into a run folder and test them on a synthetic movie with planted truth.

Follows sections 6.1 and 13.9 of the specification.

    python import_checkpoint.py saved_models.zip.001 saved_models.zip.002
    python import_checkpoint.py network_100000.pth --config config_files/final_model.ini

Reads: a network file, or a zip archive (whole, or its parts in order) that holds
``network_<iteration>.pth``; the INI file that describes the network.
Writes to results/sparks_unet/<run_name>/: ``network_<iteration>.pth`` (bare parameter names),
``self_test.json`` (the movie, the checks, events planted and found).
"""

import contextlib
import dataclasses
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from common.files import (
    FOLDER,
    InputError,
    Parser,
    one_line_faults,
    seed_number,
    sha256,
    write_json,
)
from config import EVENT_CLASSES
from read_config import load_config

CONFIG = FOLDER / "config_files" / "final_model.ini"
NETWORK = re.compile(r"network_(\d+)\.pth")
SIZE = (64, 512)  # rows, columns of a published frame
MIN_FRAMES = 160  # events in the first and last frames of a movie count as ignored
SUM_TOLERANCE = 1e-4  # of the probabilities of a voxel
TARGET = 0.5  # share of planted events that usable weights detect; our choice, none is published


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


@contextlib.contextmanager
def network_file(files, member=None):
    """Yield the path of the network file in ``files``, unpacked for the time of the block.

    Args:
        files: one network file, one zip archive, or the parts of one in their order.
        member: name of the network file inside the archive; needed when it holds several.
    """
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such file; give the downloaded files")
    if len(files) == 1 and NETWORK.fullmatch(files[0].name):
        yield files[0]
        return
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "joined.zip"
        with open(joined, "wb") as out:
            for path in files:
                with open(path, "rb") as part:
                    shutil.copyfileobj(part, out)
        listed = ", ".join(str(path) for path in files)
        try:
            with zipfile.ZipFile(joined) as archive:
                name = _member(archive.namelist(), member, listed)
                path = Path(folder) / Path(name).name
                with archive.open(name) as source, open(path, "wb") as out:
                    shutil.copyfileobj(source, out)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise InputError(
                f"{listed}: no whole zip archive ({error}); give all parts in their order, or a "
                "file network_<iteration>.pth"
            ) from None
        yield path


def _member(names, wanted, listed):
    """Return the network file to take from an archive."""
    networks = [name for name in names if NETWORK.fullmatch(Path(name).name)]
    found = [name for name in networks if wanted in (None, name)]
    if len(found) == 1:
        return found[0]
    inside = ", ".join(networks) if networks else "no file network_<iteration>.pth"
    raise InputError(f"{listed}: holds {inside}; expected one, or --member NAME")


def import_network(path, params):
    """Copy the weights at ``path`` into the run folder after they fit the network.

    Returns:
        (network in eval mode, path of the copy).
    """
    import torch

    from checkpoints import checkpoint_path, load_network, save_state
    from training_tools import seeded_model

    model = seeded_model(params, torch.device("cpu"))
    load_network(model, path)
    target = checkpoint_path(params.output_dir, "network", int(NETWORK.fullmatch(path.name)[1]))
    if target.is_file() and target.resolve() != path.resolve():
        raise InputError(f"{target}: exists; remove it or choose another --run-name")
    save_state(target, model.state_dict())
    return model.eval(), target


def planted_movie(frames, size, seed):
    """Return (movie, classes, event ids), each (T, H, W), with as dense events as in the demo."""
    from make_demo_data import SMALL, DemoSettings, make_movie

    share = frames * size[0] * size[1] / (SMALL["frames"] * SMALL["height"] * SMALL["width"])
    n_sparks, n_puffs = (max(2, round(n * share)) for n in SMALL["rates"][:2])
    settings = DemoSettings(
        movies=1,
        frames=frames,
        height=size[0],
        width=size[1],
        seed=seed,
        rates=(n_sparks, n_puffs, 1),
        exact=True,
    )
    return make_movie(settings, 0)[:3]


def self_test(model, params, *, seed, size):
    """Predict a synthetic movie twice; return the record of self_test.json.

    Args:
        model: network.
        params: Params.
        seed: of the movie.
        size: (rows, columns).
    """
    import numpy as np

    from inference_tools import predict_probabilities
    from metrics_tools import metrics_from_counts, movie_counts
    from preds_processing_tools import process_predictions

    frames = max(params.chunk[0], MIN_FRAMES)
    movie, classes, events = planted_movie(frames, size, seed)
    probabilities, clean = predict_probabilities(model, movie, params, name="self-test")
    again, _ = predict_probabilities(model, movie, params, name="self-test")
    post = params.postprocessing
    found = process_predictions(clean, probabilities, post)
    counts = movie_counts(
        classes, events, found, post=post, ignore_frames=params.ignore_frames_loss
    )
    metrics = metrics_from_counts([counts])
    error = float(np.abs(probabilities.sum(axis=0) - 1).max())
    checks = {
        "probabilities are finite": bool(np.isfinite(probabilities).all()),
        f"probabilities of a voxel add up to 1 within {SUM_TOLERANCE}": error <= SUM_TOLERANCE,
        "a second prediction is the same": bool(np.array_equal(probabilities, again)),
        f"at least {TARGET:.0%} of the planted events are detected": metrics["total/detected"]
        >= TARGET,
    }
    return {
        "movie": {"shape": list(movie.shape), "seed": seed},
        "planted": {name: counts["events"]["annotated"][name] for name in EVENT_CLASSES},
        "found": found.counts(),
        "detected": metrics["total/detected"],
        "correctly_classified": metrics["total/correctly_classified"],
        "checks": checks,
    }


@one_line_faults
def main(argv=None):
    """Run the command line; return 0, or 1 when a check of the self-test fails."""
    args = make_parser().parse_args(argv)
    params = load_config(args.config)
    if args.run_name:
        params = dataclasses.replace(params, run_name=args.run_name)
    if min(args.height, args.width) < 16:
        raise InputError(f"--height {args.height} --width {args.width}: expected at least 16")
    with network_file(args.files, args.member) as path:
        digest = sha256(path)
        model, target = import_network(path, params)
    print(f"weights fit the network of {args.config}: {target}")
    record = self_test(model, params, seed=args.seed, size=(args.height, args.width))
    record = {"network": target.name, "sha256_of_the_given_file": digest, **record}
    write_json(params.output_dir / "self_test.json", record)
    for text, passed in record["checks"].items():
        print(f"{'passed' if passed else 'FAILED'}: {text}")
    planted, found = (sum(record[key].values()) for key in ("planted", "found"))
    print(f"{planted} events planted, {found} found, {record['detected']:.2f} detected")
    return 0 if all(record["checks"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
