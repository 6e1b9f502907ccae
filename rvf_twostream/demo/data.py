"""The demo's data: made once, their planted truth, and how real the pictures look."""

import itertools
import json
from pathlib import Path

import numpy as np

from common.files import InputError, read_json, write_json
from common.locks import clear_folder, hold, visible
from common.tables import read_rows
from demo.presets import COHORTS, preset_name
from demo.synthetic import write_cohort, write_echonet
from inputs.crop import sector_mask
from inputs.dicom_io import read_frames
from inputs.scaling import GREY_STREAM


def make_data(settings: dict, folder: Path, *, fresh: bool = False) -> tuple[Path, Path]:
    """Write cohort and EchoNet look-alike below ``folder``, or reuse those of the same settings.

    Returns:
        their two folders.

    ``made.json`` says what is there and whether all of it is. It is written first, so that only
    folders that hold it are ever removed: any other may be the user's own data.
    """
    n_patients, rows, cols, frames, per_patient, n_videos, video_frames = COHORTS[
        preset_name(settings)
    ]
    wanted = {
        "seed": settings["seed"],
        "effect": settings["effect"],
        "cohort": json.loads(json.dumps(COHORTS[preset_name(settings)])),
    }
    if "no_text" in settings:
        wanted["burnt_in"] = False
    made = folder / "made.json"
    hold(folder)  # a second demo would remove the cohort that the first is reading
    if made.exists():
        made_before = read_json(made, remedy="use --fresh")
        if not fresh and made_before == {**wanted, "complete": True}:
            return folder / "cohort", folder / "echonet"
        if not fresh and made_before != {**wanted, "complete": False}:
            raise InputError(f"{folder}: holds other synthetic data; use --fresh or another --run")
        clear_folder(folder)
    elif visible(folder):
        raise InputError(f"{folder}: holds data that the demo did not make; give another --run")
    write_json(made, {**wanted, "complete": False})
    print("-- synthetic cohort and EchoNet look-alike", flush=True)
    write_cohort(
        folder / "cohort",
        n_patients=n_patients,
        seed=settings["seed"],
        effect=settings["effect"],
        rows=rows,
        cols=cols,
        frames=frames,
        movies_per_patient=per_patient,
        burnt_in="no_text" not in settings,
        workers=settings["workers"],
    )
    write_echonet(
        folder / "echonet",
        n_videos=n_videos,
        seed=settings["seed"],
        frames=video_frames,
        workers=settings["workers"],
    )
    write_json(made, {**wanted, "complete": True})
    return folder / "cohort", folder / "echonet"


def planted(root: Path) -> dict[str, dict[str, float]]:
    """Return {patient: {"TAPSE_mm", "FAC_pct", "hr_per_min"}}: means over the patient's movies."""
    truth = read_json(Path(root) / "truth.json")["movies"].values()
    groups = {}
    for movie in truth:
        groups.setdefault(movie["id"], []).append(movie)
    names = ("TAPSE_mm", "FAC_pct", "hr_per_min")
    return {
        patient: {name: float(np.mean([movie[name] for movie in movies])) for name in names}
        for patient, movies in groups.items()
    }


IMAGE_TARGETS = (  # measured on real apical four-chamber movies, specification 4.7
    ("mean grey inside the sector", "30 to 62"),
    ("standard deviation inside the sector", "29 to 60"),
    ("95th percentile inside the sector", "92 to 185"),
    ("dark pixels (12 or less) inside the sector, %", "24 to 37"),
    ("correlation of consecutive frames", "0.94 to 0.98"),
    ("mean |flow| in pixels per frame, scaled to 480 rows and 30 frames/s", "1.4"),
)


def image_statistics(root: Path, n_movies: int = 4) -> list[float]:
    """Return the means over movies of the numbers of IMAGE_TARGETS.

    Args:
        root: folder of the cohort after optical_flow_calculator.py.
        n_movies: movies looked at, the first by name.
    """
    resampled_hz = read_json(root / GREY_STREAM.stats_file)["options"]["resample_fps"]
    used = [r for r in read_rows(root / "manifest.csv") if r["status"] not in ("skipped", "failed")]
    rows = []
    for entry in sorted(used, key=lambda r: r["name"])[:n_movies]:
        frames, _ = read_frames(root / entry["source"])
        inside = frames[:, sector_mask(frames)]  # (n, pixels of the sector)
        flow = np.load(root / "processed_OF" / f"{Path(entry['name']).stem}.npy", mmap_mode="r")
        rows.append(
            (
                inside.mean(),
                inside.std(),
                np.percentile(inside, 95),
                100 * np.mean(inside <= 12),
                np.mean([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(inside)]),
                np.linalg.norm(flow, axis=-1).mean()
                * (480 / frames.shape[1])
                * ((resampled_hz or float(entry["fps"])) / 30),
            )
        )
    return [float(value) for value in np.mean(rows, axis=0)]
