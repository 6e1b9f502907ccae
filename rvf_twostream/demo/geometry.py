"""What depth and frame rate of the scanner cost: one population filmed in one way and in many.

Pixels per frame mean another speed at every depth and frame rate, cm/s do not.
``geometry_study.py`` runs it. Letters in shape comments: p patients.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from analysis.metrics import auc
from analysis.motion_numbers import motion_numbers
from common.files import read_json
from common.locks import hold
from common.tables import write_rows
from demo.presets import SMALL
from demo.synthetic import Cohort, write_cohort
from inputs.flow_files import flow_options
from inputs.frames import make_movie
from inputs.preprocessing import OPTIONS
from inputs.storage import stored_flow, values
from inputs.utils import CLASSES
from network.start import start_tensorflow
from runs.cohort import prepare_cohort, step
from runs.pipeline import training_settings
from runs.twostream import train
from settings import STORY, TRAINING, flow_settings, flow_size_of_text, preprocess_settings

RATES_HZ, DEPTHS_CM = range(25, 81), (12.0, 20.0)  # of the varied cohort
ONE_RATE_HZ, ONE_DEPTH_CM = 50, 16.0
SECONDS = 1.3  # of every movie: the longest cycle lasts 1.2
FIXED_FPS = 20.0
PIXEL = "1.4mm"  # of a movie of 120 rows at 16 cm: 12 cm are made coarser, 20 cm finer
FOLDS, DEALS, DRAWS = 10, 5, 2000


class Arm(NamedTuple):
    """One way to film and to measure the same patients."""

    name: str
    varied: bool  # depth and frame rate
    flow_unit: str
    resample_fps: float  # 0: as recorded
    nframes: int  # of the network's clips
    flow_size: str | None = None  # see optical_flow_calculator.py; None: full size


ARMS = (
    Arm(f"one geometry, cm/s, flow at {PIXEL}", False, "cm_per_s", FIXED_FPS, 16, PIXEL),
    Arm(f"varied, cm/s, flow at {PIXEL}", True, "cm_per_s", FIXED_FPS, 16, PIXEL),
    Arm("varied, cm/s, flow at full size", True, "cm_per_s", FIXED_FPS, 16),
    Arm("one geometry, pixels per frame as recorded", False, "px_per_frame", 0.0, 32),
    Arm("varied, pixels per frame as recorded (published)", True, "px_per_frame", 0.0, 32),
)


def filmed(n_patients: int, seed: int, *, varied: bool) -> Cohort:
    """Return the cohort of the study; both draw the same patients and poses."""
    rates = tuple(RATES_HZ) if varied else (ONE_RATE_HZ,) * len(RATES_HZ)
    return Cohort(
        n_patients=n_patients,
        seed=seed,
        effect="strong",
        movies_per_patient=1,
        rows=120,
        cols=160,
        seconds=SECONDS,
        frame_rates_hz=rates,
        depth_cm=DEPTHS_CM if varied else (ONE_DEPTH_CM, ONE_DEPTH_CM),
        burnt_in=False,  # the scale tells the depth
    )


def story(arm: Arm, seed: int, workers: int) -> dict:
    """Return the settings of ``main.py`` for an arm: those of the small demo."""
    given = {name.lower(): one.default for name, one in STORY.items()} | SMALL
    given |= {"seed": seed, "workers": workers, "device": "cpu", "debug": False}
    given |= {name: getattr(arm, name) for name in ("flow_unit", "flow_size", "resample_fps")}
    return given | {"nframes": arm.nframes}


def prepare_arm(cohort: Path, root: Path, settings: dict) -> None:
    """Make the movies of an arm in ``root`` from the files of ``cohort``."""
    root.mkdir(parents=True)
    for path in [*cohort.glob("*.dcm"), cohort / "REDcap_class.csv"]:
        (root / path.name).hardlink_to(path)
    prepare_cohort(root, settings)


def movie_numbers(path: Path, settings: dict) -> np.ndarray:
    """Return the motion numbers (k,) of a DICOM, with the flow that a data set would hold."""
    grey = vars(preprocess_settings())
    grey = {name: settings.get(name, grey[name]) for name in OPTIONS}
    size = settings["flow_size"] and flow_size_of_text(settings["flow_size"])
    shared = {name: settings[name] for name in ("nframes", "nrows", "ncols", "flow_unit")}
    flow = flow_settings(**shared, flow_size=size)
    options = flow_options(grey, flow)
    return motion_numbers(values(stored_flow(make_movie(path, grey, options).flow, grey["store"])))


def cohort_numbers(cohort: Path, settings: dict, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return failure (p,) and motion numbers (p, k) of a cohort of one movie a patient."""
    truth = read_json(cohort / "truth.json")["movies"]
    bar = tqdm(sorted(truth), desc="flow", disable=None, unit="movie")
    jobs = (delayed(movie_numbers)(cohort / name, settings) for name in bar)
    numbers = np.array(Parallel(n_jobs=workers)(jobs))
    classes = [CLASSES.index(truth[name]["class"]) for name in sorted(truth)]
    return np.array(classes) > TRAINING.THRESHOLD, numbers


def motion_scores(y: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the probability (p,) that motion numbers (p, k) give, each out of its fold.

    Logistic regression as in ``predict.py --baseline``, mean over DEALS ways to deal the folds.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    scores = []
    for deal in range(DEALS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=deal)
        out = cross_val_predict(model, numbers, y, cv=folds, method="predict_proba")
        scores.append(out[:, 1])
    return np.mean(scores, axis=0)


def difference(y: np.ndarray, scores: np.ndarray, others: np.ndarray, seed: int) -> dict:
    """Return AUC of ``scores``, how far it lies below that of ``others`` and its 95 % interval.

    The patients are the same: draws of them are, too.
    """
    rng = np.random.default_rng(seed)
    falls = []
    for _ in range(DRAWS):
        drawn = rng.integers(len(y), size=len(y))
        if 0 < y[drawn].sum() < len(y):
            falls.append(auc(y[drawn], others[drawn]) - auc(y[drawn], scores[drawn]))
    low, high = np.percentile(falls, [2.5, 97.5])
    return {
        "auc": auc(y, scores),
        "fall": auc(y, others) - auc(y, scores),
        "fall_low": float(low),
        "fall_high": float(high),
    }


def network_auc(root: Path, run_dir: Path, settings: dict) -> float:
    """Train the demo's network from random weights and return the AUC of its test movies."""
    strategy = start_tensorflow(seed=settings["seed"], device=settings["device"])
    train(training_settings(root, run_dir, {"grey": "none", "of": "none"}, settings), strategy)
    info = read_json(run_dir / f"{settings['model_prefix']}{settings['splitnum']}.json")
    return info["test"]["test_auc"]


def study(folder: Path, *, n_patients: int, seed: int, networks: bool, workers: int) -> list[dict]:
    """Run the study in ``folder`` and return one row per arm.

    Args:
        folder: empty; movies and weights stay there.
        networks: train the demo's network in every arm as well.
    """
    for varied in (False, True):
        step(f"cohort of {n_patients} patients, {'varied' if varied else 'one'} geometry")
        cohort = filmed(n_patients, seed, varied=varied)
        write_cohort(folder / f"cohort{varied:d}", cohort, workers=workers)
    rows, reference = [], {}
    for number, arm in enumerate(ARMS):
        step(arm.name)
        settings, cohort = story(arm, seed, workers), folder / f"cohort{arm.varied:d}"
        y, numbers = cohort_numbers(cohort, settings, workers)
        scores = motion_scores(y, numbers)
        if not arm.varied:
            reference[arm.flow_unit] = scores
        # Each with the one geometry in its own clock.
        against = reference["cm_per_s" if arm.resample_fps else "px_per_frame"]
        row = {"arm": arm.name, "patients": len(y), "failures": int(y.sum())}
        row |= difference(y, scores, against, seed)
        if networks:
            root = folder / f"arm{number}"
            prepare_arm(cohort, root, settings)
            row["network_auc"] = network_auc(root, folder / "runs" / f"arm{number}", settings)
        rows.append(row)
    return rows


def run_study(out: Path, **settings) -> None:
    """Run the study in a temporary folder, print its rows and write ``geometry.csv`` to ``out``.

    Args:
        settings: of ``study``.
    """
    hold(out)
    with tempfile.TemporaryDirectory() as folder:
        rows = study(Path(folder), **settings)
    write_rows(out / "geometry.csv", rows)
    print(f"{'AUC':>6} {'below one geometry (95 % interval)':>36}  measured as")
    for row in rows:
        fall = f"{row['fall']:.3f} ({row['fall_low']:.3f} to {row['fall_high']:.3f})"
        network = f", network {row['network_auc']:.3f}" if settings["networks"] else ""
        print(f"{row['auc']:6.3f} {fall:>36}  {row['arm']}{network}")
    print(out / "geometry.csv")
