"""Recordings and movies in NWB files (pynwb, an extra), in and out.

What is read: dF/F in a container DfOverF (or a series whose unit says dF/F), whose ROI table has
the columns azi_shift and ele_shift (degrees) and perhaps neuron (whole number, else the row's id);
a table of trials with start_time, stop_time, onset_time (seconds of the session's clock, within
the trial) and stimulus; movies called vstim_<number>
as templates, their times counted from stimulus onset, or as stimuli, whose times are the session's
and count from the onset of their trial. NWB stores pictures as (frames, x, y).
Letters: T samples, N neurons.
"""

import datetime
import logging
import re
import warnings
from pathlib import Path

import numpy as np
import torch

from common.files import InputError, atomic_path
from common.limits import check_shape

log = logging.getLogger(__name__)
TOLERANCE_S = 1e-4  # trials whose samples lie closer than this share a time axis
GAP_S = 1.0  # between trials that are written one after the other
DFF_UNITS = ("df/f", "df/f0", "dff", "ratio", "fraction", "1")
NEEDED = ("stimulus", "start_time", "stop_time", "onset_time")
UNKNOWN_START = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
CLOCK = (
    "The session's clock was not kept: trials are laid one after the other, and the start is a "
    "placeholder. Times within a trial are as recorded, onset_time is stimulus onset."
)
MOVIE = "grey, 0 black to 1 white; x to the right, y down; times from stimulus onset"


def read_nwb_sessions(path: Path) -> list[dict]:
    """Return the sessions of an NWB file, each a nested dict as the .pt files hold it.

    Trials of a stimulus whose samples lie at the same times from its onset are one session's;
    others, as a free-running microscope records them, are of further sessions, none is moved.

    Raises:
        InputError: no NWB file, or what names stimulus, onset or place is not in it.
    """
    with _Opened(path) as held:
        series, table = _dff_of(path, held)
        numbers, shifts = _neurons_of(path, table, series)
        times = _times_of(path, series)
        shape = series.data.shape
        if (shape[1] if len(shape) > 1 else 1) != len(numbers):
            raise InputError(
                f"{path}: dF/F of {' x '.join(map(str, shape))} values; expected (times, neurons), "
                f"and its rows of the ROI table are {len(numbers)}"
            )
        check_shape((len(times), len(numbers)), 8, f"{path}: dF/F")
        values = np.asarray(series.data[:], dtype=np.float64).reshape(len(times), len(numbers))
        values = (values * series.conversion + (series.offset or 0.0)) * _share(path, series)
        trials = _trials_of(path, held)
    sessions = []
    for stimulus, start, stop, onset in trials:
        inside = (times >= start - TOLERANCE_S) & (times <= stop + TOLERANCE_S)
        if not inside.any():
            raise InputError(
                f"{path}: the trial of {stimulus} from {start:g} to {stop:g} s holds no sample of "
                f"dF/F, which runs from {times[0]:g} to {times[-1]:g} s; look at the trials table"
            )
        axis = times[inside] - onset
        entry = _entry_for(sessions, stimulus, axis)
        for k, neuron in enumerate(numbers):
            trace = values[inside, k]
            if np.isnan(trace).all():  # this neuron was not recorded in this trial
                continue
            own = entry["neuron"].setdefault(neuron, {"traces": [], **shifts[k]})
            own["traces"].append(trace)
    for session in sessions:
        for entry in session.values():
            entry["t_axis"] = torch.from_numpy(entry["t_axis"]).float()
            for own in entry["neuron"].values():
                own["traces"] = torch.from_numpy(np.stack(own["traces"])).float()
    return sessions


def _entry_for(sessions, stimulus, axis):
    """Return the entry of a stimulus with this time axis, in the first session that has room."""
    for session in sessions:
        entry = session.setdefault(stimulus, {"t_axis": axis, "neuron": {}})
        same = len(entry["t_axis"]) == len(axis)
        if same and np.allclose(entry["t_axis"], axis, rtol=0, atol=TOLERANCE_S):
            return entry
    sessions.append({stimulus: {"t_axis": axis, "neuron": {}}})
    return sessions[-1][stimulus]


def read_nwb_movies(path: Path) -> dict:
    """Return {stimulus: {"rect_mov": (frames, rows, columns), "t_axis": (frames,)}} of a file."""
    with _Opened(path) as held:
        movies = {}
        for name, series in (held.stimulus_template or {}).items():
            if re.fullmatch(r"vstim_\d+", name):
                movies[name] = _movie_of(path, series, 0.0)
        for name, series in (held.stimulus or {}).items():
            match = re.fullmatch(r"(vstim_\d+)(_\d+)?", name)  # presentations may be counted
            if match is None or hasattr(series, "indexed_timeseries"):  # points to a template
                continue
            stimulus = match[1]
            movie = _movie_of(path, series, _onset_of(path, held, stimulus, series))
            if not torch.equal(movies.setdefault(stimulus, movie)["rect_mov"], movie["rect_mov"]):
                raise InputError(
                    f"{path}: {name}: another movie than {stimulus} before it; a number stands for "
                    "one movie"
                )
    return movies


def _movie_of(path, series, onset):
    """Return the frames of a series, grey 0 to 1, and their times from ``onset``."""
    if series.data is None or len(series.data.shape) != 3:
        raise InputError(f"{path}: {series.name}: expected grey pictures (frames, x, y) inside")
    check_shape(series.data.shape, 4, f"{path}: {series.name}")
    frames = np.asarray(series.data[:]).transpose(0, 2, 1)  # (frames, rows, columns)
    if (series.conversion, series.offset or 0.0) != (1.0, 0.0):
        frames = np.float32(frames * series.conversion + (series.offset or 0.0))
    axis = torch.from_numpy(_times_of(path, series) - onset).float()
    return {"rect_mov": torch.from_numpy(np.ascontiguousarray(frames)), "t_axis": axis}


def _onset_of(path, held, stimulus, series):
    """Return the onset of the trial in which a movie was shown, seconds of the session's clock."""
    if held.trials is None:
        raise InputError(
            f"{path}: {series.name}: its times are those of the session's clock, and no table of "
            "trials names the onset; add one, or store the movie as a template"
        )
    first = float(_times_of(path, series)[0])
    onsets = [onset for name, start, stop, onset in _trials_of(path, held)
              if name == stimulus and start - TOLERANCE_S <= first <= stop]  # fmt: skip
    if not onsets:
        raise InputError(
            f"{path}: {series.name}: begins at {first:g} s, within no trial of {stimulus}; look at "
            "the trials table"
        )
    return onsets[-1]


def write_nwb(path: Path, session: dict, movies: dict, *, identifier: str) -> Path:
    """Write a session and the movies of its stimuli; both as read_nwb_* return them.

    Args:
        path: .nwb file.
        session: {stimulus: {"t_axis", "neuron": {uid: {"traces", "azi_shift", "ele_shift"}}}}.
        movies: {stimulus: {"rect_mov", "t_axis"}}, those known.
        identifier: of the file, such as the digest of what it is made from.
    """
    pynwb = _pynwb()
    held = pynwb.NWBFile(
        session_description=f"Calcium of visual neurons, dF/F. {CLOCK}",
        identifier=identifier,
        session_start_time=UNKNOWN_START,
    )
    uids = sorted({uid for entry in session.values() for uid in entry["neuron"]}, key=int)
    times, values, trials = _laid_out(path, session, uids)
    region = _roi_table(pynwb, held, path, session, uids)
    with warnings.catch_warnings():  # the region's table is in the file, the series not yet
        warnings.filterwarnings("ignore", message="The linked table for DynamicTableRegion")
        series = pynwb.ophys.RoiResponseSeries(
            name="dff", data=values, rois=region, unit="dF/F", timestamps=times
        )
        module = held.create_processing_module("ophys", "calcium imaging")
        module.add(pynwb.ophys.DfOverF(roi_response_series=series))
    held.add_trial_column("stimulus", "number of the stimulus")
    held.add_trial_column("onset_time", "stimulus onset, seconds")
    for trial in trials:
        held.add_trial(**trial)
    for name, movie in movies.items():
        frames = np.asarray(movie["rect_mov"], dtype=np.float32).transpose(0, 2, 1)
        held.add_stimulus_template(pynwb.image.ImageSeries(
            name=name, data=frames, unit="grey", format="raw", description=MOVIE,
            timestamps=np.asarray(movie["t_axis"], dtype=np.float64),
        ))  # fmt: skip
    with atomic_path(path) as temporary, pynwb.NWBHDF5IO(str(temporary), "w") as io:
        io.write(held)
    return path


def _laid_out(path, session, uids):
    """Return times (T,), dF/F (T, N) and the trials of a session, one after the other."""
    times, values, trials, now = [], [], [], 0.0
    for stimulus, entry in session.items():
        axis = np.asarray(entry["t_axis"], dtype=np.float64)
        traces = {uid: np.asarray(own["traces"]) for uid, own in entry["neuron"].items()}
        for trial in range(max(len(own) for own in traces.values())):
            onset = float(np.ceil(now - axis[0]))
            block = np.full((len(axis), len(uids)), np.nan)
            for uid, own in traces.items():
                if trial < len(own):
                    block[:, uids.index(uid)] = own[trial]
                    if np.isnan(own[trial]).all():
                        raise InputError(
                            f"{path}: {stimulus}, neuron {uid}: trial {trial + 1} is NaN all over, "
                            "which an NWB file takes for not recorded; leave it out"
                        )
            times.append(onset + axis)
            values.append(block)
            stop = onset + float(axis[-1])
            trials.append({
                "start_time": onset + float(axis[0]), "stop_time": stop, "onset_time": onset,
                "stimulus": int(str(stimulus).removeprefix("vstim_")),
            })  # fmt: skip
            now = stop + GAP_S
    return np.concatenate(times), np.concatenate(values), trials


def _roi_table(pynwb, held, path, session, uids):
    """Return the region of all neurons in a new ROI table with their shifts."""
    plane = held.create_imaging_plane(
        name="plane", description="not known", excitation_lambda=float("nan"),
        indicator="not known", location="not known", device=held.create_device("microscope"),
        optical_channel=pynwb.ophys.OpticalChannel(
            name="channel", description="not known", emission_lambda=float("nan")
        ),
    )  # fmt: skip
    table = pynwb.ophys.PlaneSegmentation(
        name="neurons", description="one row per neuron; its place in the picture is not known",
        imaging_plane=plane,
    )  # fmt: skip
    table.add_column("neuron", "number of the neuron")
    table.add_column("azi_shift", "degrees, positive: stimulus nearer the midline")
    table.add_column("ele_shift", "degrees, positive: stimulus nearer the north pole")
    for uid in uids:
        records = [e["neuron"][uid] for e in session.values() if uid in e["neuron"]]
        pairs = [tuple(float(one[key]) for key in ("azi_shift", "ele_shift")) for one in records]
        shifts = list(
            {str(pair): pair for pair in pairs}.values()
        )  # NaN equals nothing but by name
        if len(shifts) > 1:
            raise InputError(
                f"{path}: neuron {uid} has shifts {sorted(shifts)} in different stimuli; an NWB "
                "file holds one pair per neuron, write the stimuli into files of their own"
            )
        azimuth, elevation = shifts.pop()
        table.add_roi(
            pixel_mask=[(0, 0, 1.0)], neuron=int(uid), azi_shift=azimuth, ele_shift=elevation
        )
    segmentation = pynwb.ophys.ImageSegmentation(name="segmentation", plane_segmentations=[table])
    held.create_processing_module("neurons", "the table of neurons").add(segmentation)
    return table.create_roi_table_region(region=list(range(len(uids))), description="all neurons")


def _dff_of(path, held):
    """Return the one series of dF/F of a file and its ROI table."""
    series = [
        one
        for module in held.processing.values()
        for container in module.data_interfaces.values()
        if type(container).__name__ == "DfOverF"
        for one in container.roi_response_series.values()
    ]
    if not series:  # a series of its own counts where its unit says what it is
        series = [
            one
            for module in held.processing.values()
            for one in module.data_interfaces.values()
            if type(one).__name__ == "RoiResponseSeries" and re.search("df/f|dff", _unit_of(one))
        ]
    if len(series) != 1:
        named = ", ".join(one.name for one in series) or "none"
        raise InputError(
            f"{path}: {len(series)} series of dF/F ({named}), in containers DfOverF or of the unit "
            "dF/F; expected one: fluorescence has no unit that a model could be fitted to"
        )
    return series[0], series[0].rois.table


def _neurons_of(path, table, series):
    """Return ([number], [{"azi_shift", "ele_shift"}]) of the columns of a series."""
    missing = [name for name in ("azi_shift", "ele_shift") if name not in table.colnames]
    if missing:
        raise InputError(
            f"{path}: the table {table.name} has no column {' and no column '.join(missing)} "
            "(degrees from the field's middle to the neuron's); add it, with NaN where it is not "
            "known (then position=learned)"
        )
    rows = np.asarray(series.rois.data[:], dtype=int)
    numbers = table["neuron"].data if "neuron" in table.colnames else table.id.data
    numbers = np.asarray(numbers[:])[rows]
    pairs = zip(*(np.asarray(table[n].data[:])[rows] for n in ("azi_shift", "ele_shift")),
                strict=True)  # fmt: skip
    shifts = [{"azi_shift": float(a), "ele_shift": float(e)} for a, e in pairs]
    names = [str(number).removesuffix(".0") for number in numbers]
    for name in names:
        if not name.isdecimal():
            raise InputError(f"{path}: neuron {name}; expected whole numbers in column neuron")
        if names.count(name) > 1:
            raise InputError(
                f"{path}: {names.count(name)} columns of dF/F are neuron {name}; expected numbers "
                "of their own"
            )
    return names, shifts


def _share(path, series):
    """Return what turns a series into dF/F: its container says dF/F, its unit may say percent."""
    unit = _unit_of(series)
    percent = "%" in unit or "percent" in unit
    if unit not in DFF_UNITS:
        log.warning("%s: dF/F has the unit %s: read as %s", path, series.unit,
                    "hundredths" if percent else "dF/F, 1 is a doubling")  # fmt: skip
    return 0.01 if percent else 1.0


def _unit_of(series):
    return str(series.unit).strip().lower().replace("\N{GREEK SMALL LETTER DELTA}", "d")


def _times_of(path, series):
    """Return the times of a series (T,), seconds: its own, or from its start and rate."""
    n = series.data.shape[0]
    if series.timestamps is not None:
        times = np.asarray(series.timestamps[:], dtype=np.float64)
        if len(times) != n:
            raise InputError(f"{path}: {series.name}: {len(times)} timestamps for {n} samples")
        return times
    if not series.rate:
        raise InputError(f"{path}: {series.name}: neither timestamps nor a rate; add them")
    return (series.starting_time or 0.0) + np.arange(n) / series.rate


def _trials_of(path, held):
    """Return [(stimulus, start, stop, onset)] of the table of trials, in its order."""
    columns = held.trials.colnames if held.trials is not None else ()
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise InputError(
            f"{path}: the table of trials has no column {', '.join(missing)}; expected "
            f"{', '.join(NEEDED)} (seconds of the session's clock)"
        )
    table = [held.trials[name].data[:] for name in NEEDED]
    trials = [
        (_stimulus_name(path, code), float(start), float(stop), float(onset))
        for code, start, stop, onset in zip(*table, strict=True)
    ]
    for stimulus, start, stop, onset in trials:
        # a recording may begin after the onset, but hardly by more than it lasts
        if not min(start, 2 * start - stop) - TOLERANCE_S <= onset <= stop + TOLERANCE_S:
            raise InputError(
                f"{path}: the trial of {stimulus} from {start:g} to {stop:g} s has its onset at "
                f"{onset:g} s; expected within it, onset_time counts in seconds of the session's "
                "clock"
            )
    return trials


def _stimulus_name(path, code):
    text = str(code).removeprefix("vstim_").removesuffix(".0")
    if not text.isdecimal():
        raise InputError(f"{path}: a trial's stimulus is {code!r}; expected a whole number")
    return f"vstim_{text}"


class _Opened:
    """An NWB file, open for reading; whatever pynwb says of a damaged one is one line."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        pynwb = _pynwb()
        try:
            self.io = pynwb.NWBHDF5IO(str(self.path), "r")
            return self.io.read()
        except Exception as error:  # pynwb and h5py raise almost any kind
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{self.path}: cannot be read as NWB ({reason})") from error

    def __exit__(self, kind, error, trace):
        self.io.close()
        if kind is not None and not issubclass(kind, InputError):
            raise InputError(f"{self.path}: cannot be read as NWB ({error})") from error


def need_pynwb() -> None:
    """Raise InputError when pynwb is not installed."""
    _pynwb()


def _pynwb():
    """Return pynwb; only NWB files need it."""
    try:
        import pynwb
        import pynwb.image
        import pynwb.ophys
    except ImportError:
        raise InputError("NWB files need pynwb: pip install -r requirements-nwb.txt") from None
    return pynwb
