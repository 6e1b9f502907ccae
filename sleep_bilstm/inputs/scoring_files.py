"""Hypnograms of other programs: read and write CSV, AccuSleep, LabChart, EDF+, SleepSign and NWB.

T epochs. Every reader returns a Scoring; what a format cannot hold is said when it is written.
edfio reads and writes EDF+, pynwb (requirements-nwb.txt) reads and writes NWB.
"""

import csv
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import edfio
import numpy as np
import scipy.io

from common.files import InputError, atomic_path
from common.tables import read_rows
from common.tables import write_table as write_csv
from inputs.mat_writer import save_mat
from inputs.scores import texts_of
from inputs.scoring import WRITTEN, Scoring, as_states, on_axis, regular
from inputs.states import ARTIFACT, NREM, REM, UNSCORED, WAKE

log = logging.getLogger(__name__)
ACCUSLEEP = {1: REM, 2: WAKE, 3: NREM}
ACCUSLEEP_UNDEFINED = {"accusleep": 4, "accusleep-csv": -1}  # of the MATLAB and the Python program
SLEEPSIGN = {WAKE: "W", NREM: "NR", REM: "R", ARTIFACT: "A", UNSCORED: ""}
EDF = {WAKE: "W", NREM: "N", REM: "R", UNSCORED: "?"}
EDF_STAGE = "Sleep stage "
CLOCK, LENGTH = "its clock", "the length of an epoch"
DATES = {"day/month/year": "%d/%m/%Y", "month/day/year": "%m/%d/%Y", "year/month/day": "%Y/%m/%d"}
STATE_COLUMNS = ("state", "stage", "sleep_stage", "sleep_state", "label")  # of an NWB table


def read_csv_file(path: Path, *, key: str = "", codes: str = "") -> Scoring:
    """Read a table with a column of states: ours, predictions (pred, true), or AccuSleep's."""
    rows = read_rows(path)
    if not rows:
        raise InputError(f"{path}: holds no rows; expected one per epoch")
    names = list(rows[0])
    column = key or next(
        (n for n in ("state", "brain_state", "smoothed", "pred", "true") if n in names), None
    )
    if column not in names:
        raise InputError(
            f"{path}: no column {column or 'state, brain_state, pred or true'} among "
            f"{', '.join(names)}; name one with --key"
        )
    texts = [row[column] or "" for row in rows]
    if column == "brain_state" and not codes:
        states = _accusleep(texts, path)
    elif column == "state" or codes:
        states = as_states(texts, codes, path, "csv")
    else:
        try:
            numbers = [int(float(text)) if text not in ("", "nan") else UNSCORED for text in texts]
        except ValueError as error:
            raise InputError(f"{path}: column {column} holds words; give --codes") from error
        if not set(numbers) <= set(WRITTEN):
            raise InputError(
                f"{path}: column {column} holds other numbers than 0, 1, 2; give --codes"
            )
        states = np.array(numbers, int)
    if "mouse" in names and len({row["mouse"] for row in rows}) > 1:
        raise InputError(f"{path}: holds several mice; give the CSV of one mouse")
    start = _clock_of(rows[0]["clock"], path) if "clock" in names else None
    if "time_s" not in names:
        return Scoring(states, None, start)
    try:
        times = np.array([float(row["time_s"]) for row in rows])
    except ValueError as error:
        raise InputError(f"{path}: column time_s holds no numbers ({error})") from error
    places, step = regular(times, path)
    before = _epochs_before(times[0], step, path)
    if before and start is not None:
        start -= timedelta(seconds=before * step)
    return Scoring(on_axis(places + before, states), step, start)


def _clock_of(text, path):
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{path}: clock is {text!r}; expected a time such as 2018-10-18T11:05:10"
        ) from None


def _epochs_before(first_s, step, path):
    """Return how many epochs lie between 0 s and the first row: artifacts that have no row."""
    if not first_s or step is None:
        return 0
    before = first_s / step
    if before < 0 or abs(before - round(before)) > 0.02:
        log.warning(
            "warning: %s: its first epoch begins at %g s, which is called 0 s here", path, first_s
        )
        return 0
    return round(before)


def write_csv_file(scoring: Scoring, path: Path) -> None:
    """Write epoch, time_s, state and, where it is known, the clock."""
    header, rows = ["epoch", "time_s", "state"], []
    for epoch, state in enumerate(scoring.states):
        rows.append([epoch, f"{epoch * scoring.epoch_s:.9g}", WRITTEN[int(state)]])
        if scoring.start:
            at = scoring.start + timedelta(seconds=epoch * scoring.epoch_s)
            rows[-1].append(at.isoformat())
    write_csv(path, header + ["clock"] * bool(scoring.start), rows)


def _accusleep(values: Iterable, path: Path) -> np.ndarray:
    try:
        numbers = [float(v) if str(v) not in ("", "nan") else math.nan for v in values]
    except ValueError as error:
        raise InputError(f"{path}: labels are no numbers ({error}); give --codes") from error
    strange = sorted({v for v in numbers if not math.isnan(v) and v not in (-1, 0, 1, 2, 3, 4)})
    if strange:
        raise InputError(
            f"{path}: label {strange[0]:g}; AccuSleep has 1 REM, 2 wake, 3 NREM, 4 or -1 undefined"
        )
    log.info("%s: read as AccuSleep: 1 REM, 2 wake, 3 NREM, others not scored", path)
    return np.array([ACCUSLEEP.get(v, UNSCORED) for v in numbers], int)


def read_mat_file(path: Path, *, key: str = "", codes: str = "") -> Scoring:
    """Read the `labels` of AccuSleep, or a cell array of words as LabChart's scores are kept."""
    try:
        held = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    except Exception as error:  # damaged bytes make scipy raise almost any kind
        raise InputError(f"{path}: cannot be read as .mat of version 5 ({error})") from error
    cells = [k for k, v in held.items() if v.dtype.kind in "OU"]
    name = key or next((k for k in ("labels", *cells) if k in held), None)
    if name not in held:
        raise InputError(
            f"{path}: holds {', '.join(held) or 'nothing'}; expected labels (AccuSleep) or a cell "
            "array of words, or name the variable with --key"
        )
    epoch_s = float(np.ravel(held["epoch_s"])[0]) if "epoch_s" in held else None
    texts = texts_of(held[name].T, None, held[name].size)
    if texts is not None:
        return Scoring(as_states(texts, codes, path, "labchart"), epoch_s)
    values = np.ravel(held[name])
    if codes:
        return Scoring(as_states([f"{v:g}" for v in values], codes, path, "mat"), epoch_s)
    if name != "labels":
        raise InputError(f"{path}: {name} holds numbers; say what they mean with --codes")
    return Scoring(_accusleep(values, path), epoch_s)


def _accusleep_numbers(scoring: Scoring, undefined: int) -> np.ndarray:
    back = {state: number for number, state in ACCUSLEEP.items()}
    return np.array([back.get(int(s), undefined) for s in scoring.states])


def write_accusleep(scoring: Scoring, path: Path) -> None:
    """Write `labels` (T, 1): 1 REM, 2 wake, 3 NREM, 4 undefined; and the length of an epoch."""
    labels = _accusleep_numbers(scoring, ACCUSLEEP_UNDEFINED["accusleep"])
    save_mat(path, {"labels": labels[:, None].astype(float), "epoch_s": scoring.epoch_s})


def write_accusleep_csv(scoring: Scoring, path: Path) -> None:
    """Write the column brain_state: 1 REM, 2 wake, 3 NREM, -1 undefined."""
    numbers = _accusleep_numbers(scoring, ACCUSLEEP_UNDEFINED["accusleep-csv"])
    write_csv(path, ["brain_state"], numbers[:, None].tolist())


def write_labchart(scoring: Scoring, path: Path) -> None:
    """Write a cell array (T, 1) of words, as the laboratory keeps the scores of LabChart."""
    words = np.array([WRITTEN[int(s)] for s in scoring.states], object)
    save_mat(path, {"scoringindex_file": words[:, None], "epoch_s": scoring.epoch_s})


def read_edf_file(path: Path, *, key: str = "", codes: str = "") -> Scoring:
    """Read the annotations of an EDF+ file whose text starts with `Sleep stage`, or is a state."""
    try:
        edf = edfio.read_edf(path)
        notes = [a for a in edf.annotations if a.duration]
    except Exception as error:  # damaged bytes make edfio raise almost any kind
        raise InputError(f"{path}: cannot be read as EDF+ ({error})") from error
    stages = [a for a in notes if a.text.startswith((EDF_STAGE, "Artifact"))] or notes
    if not stages:
        raise InputError(f"{path}: holds no annotation with a duration; expected sleep stages")
    marks = np.array([[a.onset, a.duration] for a in stages])
    whole = np.round(1000 * np.diff(marks[:, 0], append=marks[-1].sum())).astype(int)
    step = int(np.gcd.reduce(np.abs(np.r_[whole, np.round(1000 * marks[:, 1]).astype(int)])))
    if step <= 0:
        raise InputError(f"{path}: its stages overlap or have no length")
    found = as_states([a.text.removeprefix(EDF_STAGE) for a in stages], codes, path, "edf")
    starts = np.round((marks[:, 0] - marks[0, 0]) * 1000 / step).astype(int)
    lengths = np.round(marks[:, 1] * 1000 / step).astype(int)
    states = np.full(int((starts + lengths).max()), UNSCORED)
    for start, length, state in zip(starts, lengths, found, strict=True):
        states[start : start + length] = state
    try:
        start = datetime.combine(edf.startdate, edf.starttime)
        start += timedelta(seconds=float(marks[0, 0]))
    except ValueError:  # an anonymised file has no date
        start = None
    return Scoring(states, step / 1000, start)


def write_edf_file(scoring: Scoring, path: Path) -> None:
    """Write an EDF+ file of annotations only, one per epoch."""
    names = {s: f"{EDF_STAGE}{letter}" for s, letter in EDF.items()} | {ARTIFACT: "Artifact"}
    notes = [
        edfio.EdfAnnotation(round(e * scoring.epoch_s, 6), scoring.epoch_s, names[int(s)])
        for e, s in enumerate(scoring.states)
    ]
    start = scoring.start  # edfio keeps its fraction of a second as the standard says
    edf = edfio.Edf(
        [],
        annotations=notes,
        recording=edfio.Recording(startdate=start.date()) if start else None,
        starttime=start.time() if start else time(),
    )
    with atomic_path(path) as temporary:
        edf.write(temporary)


def read_sleepsign(path: Path, *, key: str = "", codes: str = "") -> Scoring:
    """Read the text that SleepSign exports: a header, then `Time,Epoch No.,Stage,...` rows."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    rows = list(csv.reader(text.splitlines()))
    head = next((i for i, row in enumerate(rows) if [c.strip() for c in row[:1]] == ["Time"]), None)
    wanted = key or "Stage"
    columns = [c.strip() for c in rows[head]] if head is not None else []
    if wanted not in columns:
        raise InputError(
            f"{path}: no line with Time, Epoch No. and {wanted}; expected a SleepSign export"
        )
    body = [row for row in rows[head + 1 :] if len(row) > columns.index(wanted) and row[0].strip()]
    times, order = _sleepsign_times([row[0].strip() for row in body], path)
    log.info("%s: dates read as %s, starting %s", path, order, times[0])
    places, step = regular(np.array([(t - times[0]).total_seconds() for t in times]), path)
    states = as_states(
        [row[columns.index(wanted)].strip() for row in body], codes, path, "sleepsign"
    )
    return Scoring(on_axis(places, states), step, times[0])


def _sleepsign_times(texts: list[str], path: Path) -> tuple[list[datetime], str]:
    """Return the times and the order of the date that fits all; the day first where several do."""
    for order, date in DATES.items():
        try:
            return [datetime.strptime(text, f"{date} %H:%M:%S") for text in texts if text], order
        except ValueError:
            continue
    raise InputError(
        f"{path}: no times such as 18/10/2018 11:05:10 in its first column; found "
        f"{texts[0] if texts else 'no rows'}"
    )


def write_sleepsign(scoring: Scoring, path: Path) -> None:
    """Write the text that SleepSign exports, with the columns Time, Epoch No. and Stage.

    Raises:
        InputError: epochs are no whole seconds long, which its clock cannot hold.
    """
    if scoring.epoch_s % 1:
        raise InputError(
            f"{path}: SleepSign's rows carry whole seconds, epochs are {scoring.epoch_s:g} s long: "
            "write .csv or .edf"
        )
    if scoring.start.microsecond:
        log.warning(
            "warning: %s holds whole seconds: its clock is %g s early",
            path,
            scoring.start.microsecond / 1e6,
        )
    rows = [["Time", "Epoch No.", "Stage", ""], ["", "", "", ""]]
    for epoch, state in enumerate(scoring.states):
        at = scoring.start + timedelta(seconds=epoch * scoring.epoch_s)
        rows.append([at.strftime("%d/%m/%Y %H:%M:%S"), epoch, SLEEPSIGN[int(state)], ""])
    write_csv(path, ["File name", path.stem], rows)


def read_nwb(path: Path, *, key: str = "", codes: str = "") -> Scoring:
    """Read a table of intervals with a column of states from an NWB file."""
    # An extra: see requirements-nwb.txt.
    pynwb = _pynwb()
    try:
        with pynwb.NWBHDF5IO(str(path), "r") as io:
            held = io.read()
            tables = list((held.intervals or {}).values())
            column, table = next(
                (c, t)
                for t in tables
                for c in ((key,) if key else STATE_COLUMNS)
                if c in t.colnames
            )
            texts = [str(v) for v in table[column][:]]
            starts = np.asarray(table["start_time"][:], float)
            stops = np.asarray(table["stop_time"][:], float)
            start = held.session_start_time
            if not start.utcoffset():  # UTC is what writers call a clock whose zone they don't know
                start = start.replace(tzinfo=None)
    except StopIteration:
        raise InputError(
            f"{path}: no table of intervals with a column of {', '.join(STATE_COLUMNS)}; name it "
            "with --key"
        ) from None
    except Exception as error:  # pynwb and h5py raise almost any kind
        raise InputError(f"{path}: cannot be read as NWB ({error})") from error
    states = as_states(texts, codes, path, "nwb")
    step = int(np.gcd.reduce(np.round(1000 * np.r_[stops - starts, np.diff(starts)]).astype(int)))
    first = np.round(1000 * (starts - starts[0]) / step).astype(int)
    lengths = np.round(1000 * (stops - starts) / step).astype(int)
    axis = np.full(int((first + lengths).max()), UNSCORED)
    for place, length, state in zip(first, lengths, states, strict=True):
        axis[place : place + length] = state
    return Scoring(axis, step / 1000, start + timedelta(seconds=float(starts[0])))


def write_nwb(scoring: Scoring, path: Path) -> None:
    """Write the table of intervals sleep_states with the column state.

    A clock whose zone is not known is written as UTC.
    """
    pynwb = _pynwb()
    start = scoring.start
    held = pynwb.NWBFile(
        session_description="sleep states",
        identifier=path.stem,
        session_start_time=start if start.tzinfo else start.replace(tzinfo=UTC),
    )
    table = pynwb.epoch.TimeIntervals(name="sleep_states", description="sleep states per epoch")
    table.add_column(name="state", description="wake, NREM, REM, artifact or unscored")
    for epoch, state in enumerate(scoring.states):
        begin = epoch * scoring.epoch_s
        table.add_row(
            start_time=begin, stop_time=begin + scoring.epoch_s, state=WRITTEN[int(state)]
        )
    held.add_time_intervals(table)
    with atomic_path(path) as temporary, pynwb.NWBHDF5IO(str(temporary), "w") as io:
        io.write(held)


def _pynwb():
    """Return pynwb; only NWB files need it."""
    try:
        import pynwb
    except ImportError:
        raise InputError("NWB files need pynwb: pip install -r requirements-nwb.txt") from None
    return pynwb


@dataclass(frozen=True)
class Format:
    """How a kind of file is read and written, and what of a hypnogram it cannot hold.

    Attributes:
        suffix: of its files.
        read, write: functions; two formats may share a reader.
        drops: states that come back as not scored.
        needs_start: its rows carry the clock.
        loses: what of the clock and the length of an epoch it has no place for, in words.
    """

    suffix: str
    read: Callable
    write: Callable
    drops: tuple[int, ...] = ()
    needs_start: bool = False
    loses: tuple[str, ...] = ()


FORMATS = {
    "csv": Format(".csv", read_csv_file, write_csv_file),
    "accusleep": Format(".mat", read_mat_file, write_accusleep, (ARTIFACT,), loses=(CLOCK,)),
    "accusleep-csv": Format(
        ".csv", read_csv_file, write_accusleep_csv, (ARTIFACT,), loses=(CLOCK, LENGTH)
    ),
    "labchart": Format(".mat", read_mat_file, write_labchart, loses=(CLOCK,)),
    "edf": Format(".edf", read_edf_file, write_edf_file),
    "sleepsign": Format(".txt", read_sleepsign, write_sleepsign, needs_start=True),
    "nwb": Format(".nwb", read_nwb, write_nwb, needs_start=True),
}


def format_of(path: Path, named: str) -> Format:
    """Return the format that is named, or else the only one with the suffix of ``path``."""
    if named:
        return FORMATS[named]
    fitting = {name: f for name, f in FORMATS.items() if f.suffix == path.suffix.lower()}
    readers = {f.read for f in fitting.values()}
    if not fitting:
        raise InputError(
            f"{path}: unknown ending {path.suffix}; expected one of "
            + ", ".join(sorted({f.suffix for f in FORMATS.values()}))
            + ", or name the format"
        )
    if len(readers) > 1 or path.suffix.lower() == ".mat":
        raise InputError(f"{path}: may be {' or '.join(fitting)}; name the format with --to")
    return fitting["csv"] if "csv" in fitting else next(iter(fitting.values()))


def read_scoring(path: Path, named: str = "", *, key: str = "", codes: str = "") -> Scoring:
    """Read a hypnogram; formats of one ending share a reader, which tells them apart."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a hypnogram")
    suffix = path.suffix.lower()
    one = next((f for f in FORMATS.values() if f.suffix == suffix), None)
    chosen = FORMATS[named] if named or one is None else one
    return chosen.read(path, key=key, codes=codes)


def convert_scoring(scoring: Scoring, path: Path, named: str = "") -> None:
    """Write a hypnogram and say what the format cannot hold.

    Raises:
        InputError: its clock or the length of its epochs is not known, and the format needs it.
    """
    chosen = format_of(path, named)
    if scoring.epoch_s is None:
        raise InputError("the length of an epoch is not in the file: give --epoch_seconds")
    if chosen.needs_start and scoring.start is None:
        raise InputError(
            f"{path}: its rows carry the clock, which the file that is read does not hold: give "
            "--start 2018-10-18T11:05:10"
        )
    lost = int(np.isin(scoring.states, chosen.drops).sum())
    if lost:
        log.warning(
            "warning: %s cannot hold artifacts: %d epochs are written as not scored", path, lost
        )
    gone = [word for word in chosen.loses if word != CLOCK or scoring.start is not None]
    if gone:
        log.warning(
            "warning: %s has no place for %s (epochs of %g s%s): keep it beside the file",
            path,
            " and ".join(gone),
            scoring.epoch_s,
            f", from {scoring.start.isoformat()}" if scoring.start else "",
        )
    chosen.write(scoring, path)


def with_clock(scoring: Scoring, epoch_s: float | None, start: str) -> Scoring:
    """Return a hypnogram with what the user knows of its clock; differences are said."""
    if epoch_s is not None:
        if scoring.epoch_s and abs(scoring.epoch_s / epoch_s - 1) > 0.01:
            log.warning(
                "warning: the file has epochs of %g s, %g s are used", scoring.epoch_s, epoch_s
            )
        scoring = replace(scoring, epoch_s=epoch_s)
    if start:
        try:
            scoring = replace(scoring, start=datetime.fromisoformat(start))
        except ValueError:
            raise InputError(
                f"start is {start}: expected a time such as 2018-10-18T11:05:10"
            ) from None
    return scoring
