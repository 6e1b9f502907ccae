"""Predict RV failure for every movie of a split, or for one DICOM file (specification 8.1, 8.2).

    python predict.py --root R --weights P.weights.h5 --splitnum 0
    python predict.py --weights P.weights.h5 --dicom FILE [--json]

Reads split folders as train_twostream.py does; P.json holds size, classes and normalisation.
Writes into <out>/predictions/output_split<N>/, by default <out> = results/rvf_twostream/P:
X_<set>.csv, y_<set>.csv, <set>_filenames.csv, <set>_redcaps.csv (published format, one value a
line), predictions.csv, patients.csv, skipped.csv, calibration.csv, metrics.json, roc.png,
calibration.png, report.html. A second run replaces them.
"""

import csv
import json
import sys
import time
from pathlib import Path

import numpy as np

from common.files import RESULTS_DIR as RESULTS
from common.files import InputError, Parser, atomic_path, one_line_faults, write_json
from options import add_device_flags, add_globals, integer, one_of
from utils import CLASSES, SETS, checked_stats, movie_id

# inference
THRESHOLD = 2  # failure when the class index is larger
N_SAMPLE = 5  # clips per movie
SAMPLING = "random"  # random starts, or even: evenly spaced

TABLE = {
    "THRESHOLD": (integer(0, 2), "failure when the class index is larger"),
    "N_SAMPLE": (integer(1), "clips per movie"),
    "SAMPLING": (one_of("random", "even"), "random or even starts of the clips"),
}


def build_parser():
    """Return the parser; the published short flags stay."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--root", type=Path, help="folder of the data set")
    parser.add_argument("-w", "--weights", type=Path, required=True, help="P.weights.h5")
    parser.add_argument("-s", "--splitnum", type=integer(0), help="number of the split")
    parser.add_argument("--sets", default="val,test", help="comma-separated: train, val, test")
    parser.add_argument("--out", type=Path, help=f"folder to write to (default {RESULTS}/P)")
    parser.add_argument("--dicom", type=Path, help="one DICOM file instead of a split")
    parser.add_argument("--json", action="store_true", help="with --dicom: print JSON")
    parser.add_argument(
        "--deid",
        type=one_of("refuse", "warn", "ignore"),
        default="refuse",
        help="with --dicom: what to do with a file that names a person",
    )
    add_globals(parser, globals(), TABLE)
    add_device_flags(parser)
    return parser


def chosen_sets(text):
    """Return the list of sets in ``text``."""
    sets = [name.strip() for name in text.split(",")]
    unknown = [name for name in sets if name not in SETS]
    if unknown or len(set(sets)) != len(sets):
        raise InputError(f"--sets {text!r}: expected some of {', '.join(SETS)}, each once")
    return sets


def clip_starts(n_frames, nframes, *, n_sample, sampling, rng):
    """Return the first frames of the clips of one movie."""
    from movies import fixed_starts, random_starts

    if sampling == "even":
        return fixed_starts(n_frames, nframes, n_sample)
    return random_starts(n_frames, nframes, n_sample, rng)


def predict_RVF(forward, movies, *, nframes=32, n_sample=5, sampling="random", seed=0):
    """Return one row per movie: mean probability of its clips, their sd and starts.

    Args:
        forward: ``make_forward(model)``.
        movies: list of ``movies.Movie``.
        nframes: frames of a clip.
        n_sample, sampling: number and choice of clips; random ones come from [seed, movie index].

    All clips of a movie go through the network in one batch.
    """
    from movies import movie_clips

    rows = []
    for index, movie in enumerate(movies):
        rng = np.random.default_rng([seed, index])
        starts = clip_starts(movie.n_frames, nframes, n_sample=n_sample, sampling=sampling, rng=rng)
        outputs = forward(movie_clips(movie, starts, nframes))[:, 0]  # (n_sample,)
        rows.append(
            {
                "file": movie.stem,
                "id": movie_id(movie.stem),
                "class": CLASSES[movie.label_class],
                "probability": float(outputs.mean(dtype=np.float64)),
                "sd": float(outputs.std(dtype=np.float64)),
                "starts": " ".join(map(str, starts)),
            }
        )
    return rows


def write_column(path, values):
    """Write one value per line followed by a comma, as the published script did."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{value},\n" for value in values), encoding="utf-8")


def write_table(path, rows, columns):
    """Write dicts as a CSV with a header."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)


def write_set(folder, name, rows):
    """Write the four files of the published format for one set."""
    write_column(folder / f"X_{name}.csv", [row["probability"] for row in rows])
    write_column(folder / f"y_{name}.csv", [bool(row["y"]) for row in rows])
    write_column(folder / f"{name}_filenames.csv", [f"{row['file']}.npy" for row in rows])
    write_column(folder / f"{name}_redcaps.csv", [row["id"] for row in rows])


def patient_rows(rows):
    """Return one row per set and patient: the mean over the patient's movies."""
    groups = {}
    for row in rows:
        groups.setdefault((row["set"], row["id"]), []).append(row)
    return [
        {
            "set": name,
            "id": patient,
            "class": movies[0]["class"],
            "y": movies[0]["y"],
            "probability": float(np.mean([movie["probability"] for movie in movies])),
            "n_movies": len(movies),
        }
        for (name, patient), movies in groups.items()
    ]


def numbers_of(rows, *, seed):
    """Return labels, scores and the summary of rows of movies or patients."""
    from metrics import summarise

    y = np.array([row["y"] for row in rows], bool)
    score = np.array([row["probability"] for row in rows], float)
    return y, score, summarise(y, score, [row["id"] for row in rows], seed=seed)


def write_results(folder, rows, skipped, *, seed, title):
    """Write tables, metrics, figures and report of all sets; return the metrics."""
    from metrics import calibration_bins

    patients = patient_rows(rows)
    columns = ("set", "file", "id", "class", "y", "probability", "sd", "starts")
    write_table(folder / "predictions.csv", rows, columns)
    write_table(folder / "patients.csv", patients, tuple(patients[0]))
    write_table(folder / "skipped.csv", skipped, ("set", "file", "reason"))
    result, curves, bins = {}, [], []
    for name in dict.fromkeys(row["set"] for row in rows):
        result[name] = {}
        for level, table in (("movies", rows), ("patients", patients)):
            y, score, numbers = numbers_of([r for r in table if r["set"] == name], seed=seed)
            result[name][level] = numbers
            if level == "patients":
                label = name if numbers["auc"] is None else f"{name}: AUC {numbers['auc']:.3f}"
                curves.append((f"{label} ({numbers['n']} patients)", y, score))
                bins.append((name, calibration_bins(y, score)))
    write_json(folder / "metrics.json", result)
    table = [
        dict(zip(("set", "mean_probability", "observed_share", "n"), (name, *group), strict=True))
        for name, groups in bins
        for group in groups
    ]
    write_table(folder / "calibration.csv", table, tuple(table[0]))
    draw_results(folder, result, curves, bins, skipped, title)
    return result


def draw_results(folder, result, curves, bins, skipped, title):
    """Draw ROC and calibration and write the report."""
    from common.report import figure_block, table_block, write_report
    from figures import calibration, roc

    roc(curves, folder / "roc.png")
    calibration(bins, folder / "calibration.png")
    header = (
        "set",
        "of",
        "n",
        "failures",
        "AUC",
        "95 % DeLong",
        "95 % bootstrap of patients",
        "specificity at 80 % sensitivity",
        "sensitivity at 80 % specificity",
        "Brier",
    )
    table = [
        (
            name,
            level,
            m["n"],
            m["n_positive"],
            text(m["auc"]),
            text(m["auc_ci95_delong"]),
            text(m["auc_ci95_bootstrap"]),
            text(m["spec_at_sens80"]),
            text(m["sens_at_spec80"]),
            text(m["brier"]),
        )
        for name, levels in result.items()
        for level, m in levels.items()
    ]
    figures = [
        {
            "path": "roc.png",
            "caption": "Receiver operating characteristic over patients.",
            "alt": "ROC curves",
        },
        {
            "path": "calibration.png",
            "caption": "Calibration over patients in fifths.",
            "alt": "calibration curves",
        },
    ]
    sections = [("Numbers", table_block(header, table)), ("Figures", figure_block(folder, figures))]
    if skipped:
        rows = [(s["set"], s["file"], s["reason"]) for s in skipped]
        sections.append(("Skipped", table_block(("set", "file", "reason"), rows)))
    lead = "Probability of RV failure: mean over clips per movie, over movies per patient."
    write_report(folder, title, lead, sections)


def text(value):
    """Return a number or an interval with three decimals, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" if np.isscalar(value) else " to ".join(f"{v:.3f}" for v in value)


def predict_split(args, info, forward):
    """Predict the chosen sets of a split, writing each set as soon as it is done."""
    from movies import list_pairs
    from utils import read_classmap

    begun = time.perf_counter()
    nframes, nrows, ncols = info["input_size"]
    classmap = read_classmap(args.root)
    folder = args.out / "predictions" / f"output_split{args.splitnum}"
    rows, skipped = [], []
    for name in chosen_sets(args.sets):
        short = []
        movies = list_pairs(
            args.root,
            args.splitnum,
            name,
            classmap,
            nframes=nframes,
            nrows=nrows,
            ncols=ncols,
            short=short,
        )
        skipped += [
            {"set": name, "file": stem, "reason": f"fewer than {nframes} frames"} for stem in short
        ]
        found = predict_RVF(
            forward,
            movies,
            nframes=nframes,
            n_sample=args.n_sample,
            sampling=args.sampling,
            seed=args.seed,
        )
        for row in found:
            row |= {"set": name, "y": int(CLASSES.index(row["class"]) > args.threshold)}
        write_set(folder, name, found)
        rows += found
    for entry in skipped:
        print(f"skipped {entry['file']} ({entry['set']}): {entry['reason']}", file=sys.stderr)
    title = f"Predictions of {args.weights.name}, split {args.splitnum}"
    result = write_results(folder, rows, skipped, seed=args.seed, title=title)
    shown = ", ".join(
        f"{name} AUC {text(levels['patients']['auc'])} ({levels['patients']['n']} patients)"
        for name, levels in result.items()
    )
    print(f"{shown}, {time.perf_counter() - begun:.0f} s, {folder / 'report.html'}")
    return result


def dicom_clips(args, info):
    """Return the network's clips of one DICOM movie, their starts and facts about the movie."""
    from preprocess import dicom_to_input

    if "grey_stats" not in info or "of_stats" not in info:
        raise InputError(f"{args.weights}: its JSON holds no normalisation; train it again")
    for key in ("grey_stats", "of_stats"):
        checked_stats(f"{args.weights}: {key} of its JSON", info[key], "train it again")
    nframes, nrows, ncols = info["input_size"]
    grey, flow, facts = dicom_to_input(
        args.dicom, info["grey_stats"], info["of_stats"], deid=args.deid
    )
    for warning in facts.get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    if grey.shape[1:3] != (nrows, ncols):
        raise InputError(
            f"{args.weights}: made for {nrows}x{ncols}, its statistics for "
            f"{grey.shape[1]}x{grey.shape[2]}; train it again"
        )
    if len(grey) < nframes:
        rate = facts["frame_rate_hz"]
        at = f" at {rate:.4g} frames/s" if rate else ""
        raise InputError(f"{args.dicom}: {len(grey)} frames{at}, {nframes} needed")
    starts = clip_starts(
        len(grey),
        nframes,
        n_sample=args.n_sample,
        sampling=args.sampling,
        rng=np.random.default_rng([args.seed, 0]),
    )
    clips = {
        "grey": np.stack([grey[s : s + nframes] for s in starts]),
        "of": np.stack([flow[s : s + nframes] for s in starts]),
    }
    return clips, starts, {"n_frames": len(grey), "frame_rate_hz": facts.get("frame_rate_hz")}


def predict_dicom(args, info, forward, given):
    """Print the probability of one DICOM movie with its spread over clips.

    Args:
        given: from ``dicom_clips``.
    """
    clips, starts, facts = given
    outputs = forward(clips)[:, 0]
    result = {
        "file": args.dicom.name,
        "probability": float(outputs.mean(dtype=np.float64)),
        "sd_over_clips": float(outputs.std(dtype=np.float64)),
        "range_over_clips": [float(outputs.min()), float(outputs.max())],
        "starts": starts,
        **facts,
        "class_rule": info.get(
            "class_rule", f"failure when the class index is above {args.threshold}"
        ),
        "weights": args.weights.name,
    }
    if args.json:
        print(json.dumps(result))
    else:
        low, high = result["range_over_clips"]
        print(
            f"{args.dicom.name}: probability of RV failure {result['probability']:.3f} "
            f"({len(starts)} clips: {low:.3f} to {high:.3f})"
        )
    return result


def check_settings(args):
    """Raise an InputError unless the flags name a split or a file."""
    if args.dicom is None and (args.root is None or args.splitnum is None):
        raise InputError("give --root and --splitnum, or --dicom FILE")
    if args.dicom is not None and not args.dicom.is_file():
        raise InputError(f"{args.dicom}: no such file")
    if args.dicom is None and not args.root.is_dir():
        raise InputError(f"{args.root}: no such folder; --root names the data set")
    chosen_sets(args.sets)


@one_line_faults
def main(argv=None):
    """Predict a split or one DICOM file; return the exit code."""
    args = build_parser().parse_args(argv)
    check_settings(args)
    from checkpoints import SUFFIX, read_info

    info = read_info(args.weights, kind="two_stream")
    if args.out is None:
        args.out = RESULTS / args.weights.name.removesuffix(SUFFIX)
    if info.get("threshold", args.threshold) != args.threshold:
        print(
            f"warning: trained with threshold {info['threshold']}, labels use {args.threshold}",
            file=sys.stderr,
        )
    # A file that is refused is refused at once, before TensorFlow starts.
    given = None if args.dicom is None else dicom_clips(args, info)
    from training import make_forward, start_tensorflow

    start_tensorflow(seed=args.seed, device=args.device)
    from model_zoo import two_stream

    forward = make_forward(two_stream(args.weights))
    if given is None:
        predict_split(args, info, forward)
    else:
        predict_dicom(args, info, forward, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
