"""Predict RV failure for every movie of a split, or for one DICOM file (specification 8.1, 8.2).

The body of ``predict.py``, whose docstring lists the files.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from analysis.figures import CALIBRATION, calibration, roc
from analysis.metrics import (
    SETS,
    against_baselines,
    beside_table,
    calibration_bins,
    decisions,
    summarise,
    text,
)
from common.files import atomic_path, write_json
from common.locks import hold
from common.report import figure_block, paragraph, table_block, write_report
from common.tables import safe_cell
from inputs.fan import fan_clips, fan_of
from inputs.movies import Movie, clip_starts, list_pairs, movie_clips, start_seed
from inputs.recipe import fit_to_model
from inputs.storage import Scaling
from inputs.utils import CLASSES, load_movie, movie_id, read_classmap, write_table
from network.checkpoints import read_info
from network.model_zoo import two_stream
from runs.baseline import baselines
from runs.training import make_forward
from settings import Settings, chosen_sets


def predict_RVF(
    forward: Callable,
    movies: list[Movie],
    *,
    nframes: int = 32,
    n_sample: int = 5,
    sampling: str = "random",
    seed: int = 0,
    rescaling: dict[str, Scaling] | None = None,
    clips_of: Callable = movie_clips,
) -> list[dict]:
    """Return one row per movie: mean probability of its clips, their sd and starts.

    Args:
        forward: ``make_forward(model)``.
        movies: list of ``movies.Movie``.
        nframes: frames of a clip.
        rescaling: of ``recipe.fit_to_model``, or None.
        n_sample, sampling: number and choice of clips; random ones come from the seed and the
            movie's content, so that a movie has the same ones in every data set.
        clips_of: ``movies.movie_clips`` or ``fan.fan_clips``.

    All clips of a movie go through the network in one batch.
    """
    rows = []
    for movie in movies:
        rng = np.random.default_rng([seed, start_seed(load_movie(movie.grey_path), movie.stem)])
        starts = clip_starts(movie.n_frames, nframes, n_sample=n_sample, sampling=sampling, rng=rng)
        outputs = forward(clips_of(movie, starts, nframes, rescaling))[:, 0]  # (n_sample,)
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


def write_column(path: Path, values: Sequence) -> None:
    """Write one value per line followed by a comma, as the published script did.

    Differs: a name that a spreadsheet would compute is written as text.
    """
    cells = [safe_cell(value) if isinstance(value, str) else value for value in values]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{cell},\n" for cell in cells), encoding="utf-8")


def write_set(folder: Path, name: str, rows: list[dict]) -> None:
    """Write the four files of the published format for one set."""
    write_column(folder / f"X_{name}.csv", [row["probability"] for row in rows])
    write_column(folder / f"y_{name}.csv", [bool(row["y"]) for row in rows])
    write_column(folder / f"{name}_filenames.csv", [f"{row['file']}.npy" for row in rows])
    write_column(folder / f"{name}_redcaps.csv", [row["id"] for row in rows])


def patient_rows(rows: list[dict]) -> list[dict]:
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
            "recipe": movies[0].get("recipe", ""),
        }
        for (name, patient), movies in groups.items()
    ]


def numbers_of(rows: list[dict], *, seed: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return labels, scores and the summary of rows of movies or patients."""
    y = np.array([row["y"] for row in rows], bool)
    score = np.array([row["probability"] for row in rows], float)
    return y, score, summarise(y, score, [row["id"] for row in rows], seed=seed)


def write_results(
    folder: Path,
    rows: list[dict],
    skipped: list[dict],
    *,
    seed: int,
    title: str,
    beside: dict[str, dict] | None = None,
    notes: Sequence[str] = (),
) -> dict:
    """Write tables, metrics, figures and report of all sets; return the metrics.

    Args:
        beside: {what was computed beside the network: {set: summary over patients}}.
        notes: what a reader of ``beside`` must know.
    """
    beside = beside or {}
    patients = patient_rows(rows)
    columns = ("set", "file", "id", "class", "y", "probability", "sd", "starts", "recipe")
    columns += tuple(name for name in ("probability_fan_only",) if name in rows[0])
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
                words = SETS.get(name, name)
                label = words if numbers["auc"] is None else f"{words}: AUC {numbers['auc']:.3f}"
                curves.append((f"{label} ({numbers['n']} patients)", y, score))
                bins.append((name, calibration_bins(y, score)))  # of the file's name: for the CSV
    write_json(folder / "metrics.json", result)
    if beside:
        write_json(folder / "beside.json", beside)
    else:
        (folder / "beside.json").unlink(missing_ok=True)  # of an earlier prediction
    table = [
        dict(zip(("set", "mean_probability", "observed_share", "n"), (name, *group), strict=True))
        for name, groups in bins
        for group in groups
    ]
    write_table(folder / "calibration.csv", table, tuple(table[0]))
    roc(curves, folder / "roc.png")
    calibration(
        [(SETS.get(name, name), groups) for name, groups in bins], folder / "calibration.png"
    )
    figures = [
        {
            "path": "roc.png",
            "caption": "Receiver operating characteristic over patients.",
            "alt": "ROC curves",
        },
        {"path": "calibration.png", "caption": CALIBRATION, "alt": "calibration curves"},
    ]
    sections = [
        ("Numbers", table_block(*numbers_table(result))),
        ("Decisions", table_block(*decisions(result))),
        ("Figures", figure_block(folder, figures)),
    ]
    if beside:
        said = [*against_baselines(result, beside), *notes]
        text_block = table_block(*beside_table(result, beside)) + "".join(map(paragraph, said))
        sections.insert(1, ("Beside the network", text_block))
    if skipped:
        table = [(s["set"], s["file"], s["reason"]) for s in skipped]
        sections.append(("Skipped", table_block(("set", "file", "reason"), table)))
    lead = "Probability of RV failure: mean over clips per movie, over movies per patient."
    write_report(folder, title, lead, sections)
    return result


def numbers_table(result: dict) -> tuple[tuple, list[tuple]]:
    """Return (header, rows) of the numbers of each set, over movies and over patients."""
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
            SETS.get(name, name),
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
    return header, table


def predict_weights(args: Settings) -> dict:
    """Predict the sets of a split with the weights that ``args`` names; return the metrics.

    TensorFlow is started (``network.start``).
    """
    info = read_info(args.weights, kind="two_stream")
    if info.get("threshold", args.threshold) != args.threshold:
        print(
            f"warning: trained with threshold {info['threshold']}, labels use {args.threshold}",
            file=sys.stderr,
        )
    return predict_split(args, info, make_forward(two_stream(args.weights)))


def predict_split(args: Settings, info: dict, forward: Callable) -> dict:
    """Predict the chosen sets of a split, writing each set as soon as it is done."""
    begun = time.perf_counter()
    nframes, nrows, ncols = info["input_size"]
    classmap = read_classmap(args.root)
    recipe, scaling = fit_to_model(args.root, args.splitnum, info, args.weights)
    folder = args.out / "predictions" / f"output_split{args.splitnum}"
    hold(folder)
    rows, skipped, notes = [], [], []
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
        how = {name: getattr(args, name) for name in ("n_sample", "sampling", "seed")}
        how |= {"nframes": nframes, "rescaling": scaling}
        predicted = predict_RVF(forward, movies, **how)
        if args.fan_only:
            blanked = predict_RVF(forward, movies, clips_of=fan_clips, **how)
            whole = sum(scaling is None or fan_of(movie) is None for movie in movies)
            if whole:
                notes.append(
                    f"{name}: nothing is blanked in {whole} of {len(movies)} movies, whose fan "
                    "can't be told"
                )
                print(f"warning: {notes[-1]}", file=sys.stderr)
            for row, other in zip(predicted, blanked, strict=True):
                row["probability_fan_only"] = other["probability"]
        for row in predicted:
            row |= {
                "recipe": recipe.hash if recipe else "",
                "set": name,
                "y": int(CLASSES.index(row["class"]) > args.threshold),
            }
        write_set(folder, name, predicted)
        rows += predicted
    for entry in skipped:
        print(f"skipped {entry['file']} ({entry['set']}): {entry['reason']}", file=sys.stderr)
    title = f"Predictions of {args.weights.name}, split {args.splitnum}"
    beside = {}
    if args.fan_only:
        beside["the network, all outside the fan blanked"] = fan_only_numbers(rows, args.seed)
    if args.baseline:
        others = baselines(args, info, chosen_sets(args.sets), folder)
        beside |= {f"logistic regression on {kind}": sets for kind, sets in others.items()}
    how = {"seed": args.seed, "title": title, "beside": beside, "notes": notes}
    result = write_results(folder, rows, skipped, **how)
    shown = ", ".join(
        f"{name} AUC {text(levels['patients']['auc'])} ({levels['patients']['n']} patients), "
        f"{text(levels['movies']['auc'])} ({levels['movies']['n']} movies)"
        for name, levels in result.items()
    )
    clips = f"{args.n_sample} {args.sampling} clips each"
    print(f"{shown}, {clips}, {time.perf_counter() - begun:.0f} s, {folder / 'report.html'}")
    for kind, sets in beside.items():
        shown = ", ".join(f"{name} AUC {text(numbers['auc'])}" for name, numbers in sets.items())
        print(f"beside it, {kind}: {shown} (patients)")
    return result


def fan_only_numbers(rows: list[dict], seed: int) -> dict:
    """Return {set: summary over patients} of the probabilities with all outside the fan blanked."""
    blanked = [row | {"probability": row["probability_fan_only"]} for row in rows]
    patients = patient_rows(blanked)
    return {
        name: numbers_of([row for row in patients if row["set"] == name], seed=seed)[2]
        for name in dict.fromkeys(row["set"] for row in patients)
    }


def predict_dicom(args: Settings, info: dict, given: tuple) -> dict:
    """Print the probability of one DICOM movie with its spread over clips; return the result.

    TensorFlow is started (``network.start``).

    Args:
        given: from ``dicom_clips``.
    """
    clips, starts, facts = given
    outputs = make_forward(two_stream(args.weights))(clips)[:, 0]
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
        rate = result["frame_rate_hz"]
        shown = f"{rate:.4g}/s" if rate else "unknown"
        print(f"frame rate {shown} ({result['frame_rate_origin']})")
    return result
