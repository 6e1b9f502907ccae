"""Make a synthetic cohort of four-chamber DICOM movies with planted right-ventricular function.

Follows specification section 4.7. The heart is drawn in phantom.py; here are the population, the
DICOM files (or an EchoNet-Dynamic look-alike) and the truth behind them.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from common.files import InputError, atomic_path, write_json
from common.locks import visible
from demo.phantom import DEPTH_CM, SYSTOLE, Heart, draw_movie, screen, to_pixels
from inputs.utils import CLASSES
from settings import SYNTHETIC

SLOPES = {"strong": 6.0, "realistic": 0.36, "none": 0.0}  # b of P(RVF) = 1/(1 + exp(b f + 1.2))
FRAME_RATES_HZ = (30, 40, 50, 60)
ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
ECHONET_SIZE = 112
MEAN_EF, SD_EF = 55.75, 12.37  # percent, of EchoNet-Dynamic


@dataclass(frozen=True)
class Cohort:
    """The patients of a synthetic cohort and the scanner that films them.

    ``frames`` and ``movies_per_patient`` are a number, or (fewest, most) drawn per movie and per
    patient; ``effect`` says how strongly RV function decides failure: strong, realistic or none.
    """

    n_patients: int = SYNTHETIC.N_PATIENTS
    seed: int = SYNTHETIC.SEED
    effect: str = SYNTHETIC.EFFECT
    two_class: bool = False
    movies_per_patient: int | tuple[int, int] = (1, 3)
    rows: int = SYNTHETIC.ROWS
    cols: int = SYNTHETIC.COLS
    frames: int | tuple[int, int] = (SYNTHETIC.MIN_FRAMES, SYNTHETIC.MAX_FRAMES)
    seconds: float | None = None  # length of every movie, in the place of ``frames``
    frame_rates_hz: tuple[int, ...] = FRAME_RATES_HZ  # one is drawn per movie
    depth_cm: tuple[float, float] = (DEPTH_CM, DEPTH_CM)  # least and most, drawn per movie
    jpeg: bool = False  # JPEG baseline in YBR_FULL_422
    rgb: bool = False  # three equal channels
    burnt_in: bool = True  # a scale and a word outside the fan
    # Adds a short movie, an unlabelled id, a truncated file, a text file and a named patient.
    hard: bool = False


class Shot(NamedTuple):
    """One movie to draw: its patient, the seeds of everything random in it, its frames."""

    patient: dict
    seeds: list[int]
    n_frames: int


def draw_population(n_patients: int, seed: int, effect: str, two_class: bool) -> list[dict]:
    """Return one dict per patient: id, class, latent function f and the planted measures.

    Source: section 4.7, "Population". Patients with failure are severe; the others are normal,
    mild, moderate by thirds of f.
    """
    patients = []
    for k in range(n_patients):
        rng = np.random.default_rng([seed, k])
        f = rng.standard_normal()
        patients.append(
            {
                "id": f"syn{k:04d}",
                "f": f,
                "TAPSE_mm": float(np.clip(15 + 4 * f + rng.standard_normal(), 5, 26)),
                "FAC_pct": float(np.clip(30 + 8 * f + 2 * rng.standard_normal(), 8, 52)),
                "rv_lv_ratio": float(
                    np.clip(0.72 - 0.10 * f + 0.06 * rng.standard_normal(), 0.45, 1.15)
                ),
                "LVEF_pct": float(np.clip(22 + 6 * rng.standard_normal(), 8, 40)),
                "LVEDD_cm": float(np.clip(6.6 + 0.7 * rng.standard_normal(), 4.8, 8.4)),
                "hr_per_min": float(np.clip(84 + 14 * rng.standard_normal(), 50, 140)),
                "failure": bool(rng.random() < 1 / (1 + np.exp(SLOPES[effect] * f + 1.2))),
            }
        )
    others = sorted((p["f"] for p in patients if not p["failure"]), reverse=True)
    for patient in patients:
        if patient["failure"]:
            patient["class"] = "severe"
        else:
            third = 0 if two_class else 3 * others.index(patient["f"]) // len(others)
            patient["class"] = CLASSES[third]
    return patients


def draw_heart(
    patient: dict,
    rng: np.random.Generator,
    *,
    n_frames: int,
    frame_rate_hz: float,
    depth_cm: float = DEPTH_CM,
) -> Heart:
    """Return the Heart of one movie: pose and timing drawn anew, function of the patient.

    The cycle and the systole are whole numbers of frames, and the movie starts where it still
    holds an end-diastolic and an end-systolic frame.
    """
    cycle = round(60 / patient["hr_per_min"] * frame_rate_hz)
    systole = max(2, round(SYSTOLE * cycle))
    starts = [
        first
        for first in range(cycle)
        if {0, systole} <= {(first + k) % cycle for k in range(n_frames)}
    ]
    return Heart(
        lv_diameter=patient["LVEDD_cm"],
        rv_width=patient["LVEDD_cm"] * patient["rv_lv_ratio"],
        tapse_cm=patient["TAPSE_mm"] / 10,
        fac=patient["FAC_pct"] / 100,
        ef=patient["LVEF_pct"] / 100,
        shift_x=float(rng.normal(0, 0.35)),
        shift_z=float(rng.normal(0, 0.25)),
        rotation_deg=float(rng.normal(0, 5)),
        gain_db=float(rng.uniform(-3, 3)),
        cycle=cycle,
        systole=systole,
        first=int(rng.choice(starts or range(cycle))),
        depth_cm=depth_cm,
    )


def movie_truth(
    heart: Heart, patient: dict, *, n_frames: int, frame_rate_hz: float, rows: int, cols: int
) -> dict:
    """Return the planted truth of one movie as plain values (see truth.json in the README)."""
    frames = np.arange(n_frames)
    annulus = heart.annulus(heart.contraction(frames))
    annulus_rows, annulus_cols = to_pixels(*annulus, rows, cols, heart.depth_cm)
    phase = (frames + heart.first) % heart.cycle
    return {
        "id": patient["id"],
        "class": patient["class"],
        "TAPSE_mm": patient["TAPSE_mm"],
        "FAC_pct": patient["FAC_pct"],
        "LVEF_pct": patient["LVEF_pct"],
        "rv_lv_ratio": patient["rv_lv_ratio"],
        "hr_per_min": 60 * frame_rate_hz / heart.cycle,
        "frame_rate_hz": frame_rate_hz,
        "pixel_mm": 10 * screen(rows, cols, heart.depth_cm)[3],
        "end_diastolic_frames": np.flatnonzero(phase == 0).tolist(),
        "end_systolic_frames": np.flatnonzero(phase == heart.systole).tolist(),
        "annulus_rows": [round(float(x), 4) for x in annulus_rows],
        "annulus_columns": [round(float(x), 4) for x in annulus_cols],
    }


def dicom_dataset(
    movie: np.ndarray,
    patient_id: str,
    uid_source: list[str],
    *,
    frame_rate_hz: float,
    pixel_cm: float,
    box: Sequence[int],
    jpeg: bool,
    rgb: bool,
) -> Dataset:
    """Return the DICOM data set of a movie (n, r, c) uint8 in the scanner's own format.

    Args:
        uid_source: list of str from which the UIDs are made.
        pixel_cm: size of a pixel.
        box: rows and columns of the ultrasound region: row0, row1, col0, col1, inclusive.
        jpeg, rgb: JPEG baseline in YBR_FULL_422, or three equal channels.
    """

    def uid(kind):
        return generate_uid(entropy_srcs=[*uid_source, kind])

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ULTRASOUND_MULTIFRAME
    meta.MediaStorageSOPInstanceUID = uid("instance")
    meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = ULTRASOUND_MULTIFRAME, uid("instance")
    data.StudyInstanceUID, data.SeriesInstanceUID = uid("study"), uid("series")
    data.Modality, data.PatientID, data.PatientName = "US", patient_id, ""
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = "synthetic"
    data.BurnedInAnnotation = "NO"
    data.FrameTime = f"{1000 / frame_rate_hz:.6f}"
    data.CineRate = frame_rate_hz
    data.FrameIncrementPointer = 0x00181063  # FrameTime
    data.NumberOfFrames, data.Rows, data.Columns = movie.shape
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.SequenceOfUltrasoundRegions = [_region(box, pixel_cm)]
    colour = jpeg or rgb
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "YBR_FULL_422" if jpeg else "RGB" if rgb else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    if jpeg:
        data.LossyImageCompression = "01"
        data.PixelData = encapsulate([_jpeg_bytes(frame) for frame in movie])
        data["PixelData"].VR = "OB"
    else:
        pixels = np.repeat(movie[..., None], 3, axis=-1) if rgb else movie
        data.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    return data


def _region(box, pixel_cm):
    """Return the item of SequenceOfUltrasoundRegions of a 2-D tissue picture in cm."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0
    item.RegionLocationMinY0, item.RegionLocationMaxY1 = box[0], box[1]
    item.RegionLocationMinX0, item.RegionLocationMaxX1 = box[2], box[3]
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3  # cm
    item.PhysicalDeltaX = item.PhysicalDeltaY = float(pixel_cm)
    return item


def _jpeg_bytes(frame):
    stream = io.BytesIO()
    colour = Image.fromarray(np.repeat(frame[..., None], 3, axis=-1))
    colour.save(stream, "JPEG", quality=92, subsampling="4:2:2")
    return stream.getvalue()


def _write_movie(out_dir, name, shot, cohort):
    """Draw and write one DICOM movie; return its truth."""
    patient, seeds, n_frames = shot
    rows, cols = cohort.rows, cohort.cols
    rng = np.random.default_rng(seeds)
    frame_rate_hz = int(rng.choice(cohort.frame_rates_hz))
    if cohort.seconds is not None:
        n_frames = round(cohort.seconds * frame_rate_hz)
    # Drawn apart: the same seed films the same beats at any depth.
    depth_cm = float(np.random.default_rng([*seeds, 7]).uniform(*cohort.depth_cm))
    heart = draw_heart(
        patient, rng, n_frames=n_frames, frame_rate_hz=frame_rate_hz, depth_cm=depth_cm
    )
    movie = draw_movie(heart, n_frames, rows, cols, rng, burnt_in=cohort.burnt_in)
    _, _, inside, pixel_cm, *_ = screen(rows, cols, depth_cm)
    filled_rows, filled_cols = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    data = dicom_dataset(
        movie,
        patient["id"],
        [str(s) for s in seeds] + [name, str(rows)],
        frame_rate_hz=frame_rate_hz,
        pixel_cm=pixel_cm,
        box=[int(x) for x in (filled_rows[0], filled_rows[-1], filled_cols[0], filled_cols[-1])],
        jpeg=cohort.jpeg,
        rgb=cohort.rgb,
    )
    with atomic_path(out_dir / name) as temporary:
        data.save_as(temporary, enforce_file_format=True)
    return movie_truth(
        heart, patient, n_frames=n_frames, frame_rate_hz=frame_rate_hz, rows=rows, cols=cols
    )


def list_shots(cohort: Cohort, patients: list[dict]) -> dict[str, Shot]:
    """Return {file name: Shot} of all movies of a cohort."""

    def span(value):
        return (value, value) if isinstance(value, int) else value

    (low, high), (fewest, most) = span(cohort.movies_per_patient), span(cohort.frames)
    shots = {}
    for k, patient in enumerate(patients):
        rng = np.random.default_rng([cohort.seed, k, 1])
        for j in range(rng.integers(low, high, endpoint=True)):
            n_frames = int(rng.integers(fewest, most, endpoint=True))
            shots[f"{patient['id']}_{j}.dcm"] = Shot(patient, [cohort.seed, k, 2, j], n_frames)
    if cohort.hard:
        stranger = {**patients[0], "id": "nobody01"}
        shots["short.dcm"] = Shot(patients[0], [cohort.seed, 0, 3], 20)
        shots["unlabelled.dcm"] = Shot(stranger, [cohort.seed, 0, 4], fewest)
    return shots


def write_cohort(
    out_dir: Path,
    cohort: Cohort | None = None,
    *,
    workers: int = SYNTHETIC.WORKERS,
    **given,
) -> dict:
    """Write a cohort with planted truth and return the content of its truth.json.

    Args:
        out_dir: new or empty folder.
        cohort: what to write; without it ``given`` are fields of a ``Cohort``.
        workers: processes; the files do not depend on it.
    """
    cohort = Cohort(**given) if cohort is None else replace(cohort, **given)
    out_dir = Path(out_dir)
    if out_dir.is_dir() and visible(out_dir):
        raise InputError(f"{out_dir}: holds files already; give an empty folder or remove it")
    patients = draw_population(cohort.n_patients, cohort.seed, cohort.effect, cohort.two_class)
    shots = list_shots(cohort, patients)
    out_dir.mkdir(parents=True, exist_ok=True)
    truths = Parallel(n_jobs=workers)(
        delayed(_write_movie)(out_dir, name, shot, cohort) for name, shot in shots.items()
    )
    if cohort.hard:
        _add_broken_files(out_dir, next(iter(shots)))
    with atomic_path(out_dir / "REDcap_class.csv") as temporary:
        rows_out = [("id", "class"), *((p["id"], p["class"]) for p in patients)]
        _write_csv(temporary, rows_out)
    settings = {name: getattr(cohort, name) for name in ("n_patients", "seed", "effect")}
    truth = {"settings": settings, "movies": dict(zip(shots, truths, strict=True))}
    write_json(out_dir / "truth.json", truth)
    return truth


def _add_broken_files(out_dir, sound):
    """Add a truncated file, a text file and a file with a name to a cohort."""
    (out_dir / "notes.dcm").write_text("this is not a DICOM file\n", encoding="utf-8")
    data = dcmread(out_dir / sound)
    original = data.SOPInstanceUID[:61]
    for k, name in enumerate(("truncated.dcm", "named.dcm")):
        data.PatientName = "" if name == "truncated.dcm" else "Doe^Jane"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{original}.{k}"
        data.save_as(out_dir / name)
    content = (out_dir / "truncated.dcm").read_bytes()
    (out_dir / "truncated.dcm").write_bytes(content[: len(content) // 2])


def _write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)


def _write_video(out_dir, name, ef_pct, seeds, *, n_frames):
    """Draw and write one video of the EchoNet look-alike; return its FileList row and tracings."""
    rng = np.random.default_rng(seeds)
    frame_rate_hz = int(np.clip(round(rng.normal(51, 6)), 30, 80))
    patient = {
        "LVEDD_cm": float(np.clip(rng.normal(4.9, 0.5), 3.8, 6.5)),
        "rv_lv_ratio": 0.7,
        "TAPSE_mm": 20.0,
        "FAC_pct": 42.0,
        "LVEF_pct": ef_pct,
        "hr_per_min": float(np.clip(rng.normal(72, 12), 50, 120)),
    }
    heart = draw_heart(patient, rng, n_frames=n_frames, frame_rate_hz=frame_rate_hz)
    # Drawn at twice the size: one speckle of the small picture then holds several samples.
    large = draw_movie(heart, n_frames, 2 * ECHONET_SIZE, 2 * ECHONET_SIZE, rng, burnt_in=False)
    size = (ECHONET_SIZE, ECHONET_SIZE)
    with atomic_path(out_dir / "Videos" / f"{name}.avi") as temporary:
        fourcc = cv2.VideoWriter_fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(temporary), fourcc, frame_rate_hz, size)
        if not writer.isOpened():
            raise InputError(
                f"{out_dir}: this OpenCV cannot write MJPG video; install the pinned one"
            )
        for frame in large:
            small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            writer.write(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR))
        writer.release()
    phase = (np.arange(n_frames) + heart.first) % heart.cycle
    tracings = []
    for g, wanted in ((0.0, 0), (1.0, heart.systole)):
        frame = int(np.flatnonzero(phase == wanted)[0])
        tracings += [(f"{name}.avi", *chord, frame) for chord in _chords(heart, g)]
    volumes = [_lv_volume_ml(heart, g) for g in (0.0, 1.0)]
    row = (
        name,
        f"{100 * (1 - volumes[1] / volumes[0]):.6f}",
        f"{volumes[1]:.6f}",
        f"{volumes[0]:.6f}",
        ECHONET_SIZE,
        ECHONET_SIZE,
        frame_rate_hz,
        n_frames,
    )
    return row, tracings


def _lv_volume_ml(heart, g):
    """Volume of the cavity as a stack of discs: pi/4 D^2 H times the integral of the profile^2."""
    length, width = heart.lv_factors
    diameter = heart.lv_diameter * (1 - width * g)
    return np.pi / 4 * diameter**2 * heart.lv_length * (1 - length * g) * 2 / 3


def _chords(heart, g):
    """Return the long axis and 20 chords across it: (x1, y1, x2, y2) in pixels of the video."""
    x, z = heart.outline("lv", g, n=422)  # 420 points of the wall, then the septum
    rows, cols = to_pixels(x, z, 2 * ECHONET_SIZE, 2 * ECHONET_SIZE)
    rows, cols = (rows - 0.5) / 2, (cols - 0.5) / 2
    apex, base = np.array([cols[-1], rows[-1]]), np.array([cols[-2], rows[-2]])
    wall = np.stack([cols[:-2], rows[:-2]], axis=1)
    middle = (base + wall[-1]) / 2
    chords = [(*apex, *middle)]
    for s in (np.arange(20) + 0.5) / 20:
        inner, outer = apex + s * (base - apex), wall[int(s * (len(wall) - 1))]
        chords.append((*inner, *outer))
    return [tuple(round(float(value), 4) for value in chord) for chord in chords]


def write_echonet(
    out_dir: Path,
    *,
    n_videos: int = SYNTHETIC.N_VIDEOS,
    seed: int = SYNTHETIC.SEED,
    frames: tuple[int, int] = (60, 250),
    workers: int = SYNTHETIC.WORKERS,
) -> dict:
    """Write an EchoNet-Dynamic look-alike: Videos/*.avi, FileList.csv, VolumeTracings.csv.

    EF follows from the volumes of the drawn left ventricle. Splits: 75, 13 and 12 %.
    """
    out_dir = Path(out_dir)
    if out_dir.is_dir() and visible(out_dir):
        raise InputError(f"{out_dir}: holds files already; give an empty folder or remove it")
    (out_dir / "Videos").mkdir(parents=True)
    rng = np.random.default_rng([seed, 5])
    ef = np.clip(rng.normal(MEAN_EF, SD_EF, n_videos), 10, 85)
    lengths = rng.integers(*frames, size=n_videos, endpoint=True)
    names = [f"0XSYN{k:06d}" for k in range(n_videos)]
    made = Parallel(n_jobs=workers)(
        delayed(_write_video)(out_dir, name, float(ef[k]), [seed, k, 6], n_frames=int(lengths[k]))
        for k, name in enumerate(names)
    )
    n_train, n_val = round(0.75 * n_videos), round(0.13 * n_videos)
    splits = ["TRAIN"] * n_train + ["VAL"] * n_val + ["TEST"] * (n_videos - n_train - n_val)
    header = ("FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth")
    header += ("FPS", "NumberOfFrames", "Split")
    listed = [(*row, split) for (row, _), split in zip(made, splits, strict=True)]
    chords = [chord for _, tracings in made for chord in tracings]
    with atomic_path(out_dir / "FileList.csv") as temporary:
        _write_csv(temporary, [header, *listed])
    with atomic_path(out_dir / "VolumeTracings.csv") as temporary:
        _write_csv(temporary, [("FileName", "X1", "Y1", "X2", "Y2", "Frame"), *chords])
    return {"n_videos": n_videos, "EF": [float(row[1]) for row, _ in made]}
