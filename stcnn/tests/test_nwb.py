"""NWB files in and out (pynwb, an extra): round trip, free-running clocks, what is refused."""

import datetime
import warnings

import numpy as np
import pytest
import torch

from common.files import InputError
from inputs.recordings import read_movies, read_recordings
from runs.convert import convert_all

pynwb = pytest.importorskip("pynwb", reason="an extra: requirements-nwb.txt")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The linked table for DynamicTableRegion"),
    pytest.mark.filterwarnings("ignore:.*Data is oriented incorrectly"),
]
TOLERANCE_S = 1e-6
UTC = datetime.UTC


@pytest.fixture
def converted(tmp_path):
    """A session of two stimuli and two neurons, its movies, and the NWB file made of them."""
    generator = torch.Generator().manual_seed(1)
    axis = (torch.arange(20) - 5) / 7.5

    def neuron(trials, shift):
        return {
            "traces": torch.rand(trials, 20, generator=generator),
            "azi_shift": torch.tensor(shift),
            "ele_shift": torch.tensor(-shift / 3),
        }

    session = {
        "vstim_5": {"t_axis": axis, "neuron": {11: neuron(3, 1.25), 7: neuron(2, -4.0)}},
        "vstim_12": {"t_axis": axis[:9], "neuron": {7: neuron(1, -4.0)}},
    }
    session["vstim_12"]["neuron"][7]["traces"] = torch.rand(1, 9, generator=generator)
    for folder in ("ca/lc11", "mov"):
        (tmp_path / folder).mkdir(parents=True)
    torch.save(session, tmp_path / "ca" / "lc11" / "a.pt")
    for code, frames in ((5, 30), (12, 7)):
        movie = torch.rand(frames, 6, 9, generator=generator)
        times = torch.arange(frames) / 60 - 0.1
        entry = {"rect_mov": movie, "t_axis": times}
        torch.save({f"vstim_{code}": entry}, tmp_path / "mov" / f"vstim_{code}.pt")
    written, faults = convert_all([tmp_path / "ca", tmp_path / "mov"], tmp_path / "nwb", form="nwb")
    assert (written, faults) == (1, [])
    return tmp_path


def test_traces_and_movies_come_back_with_their_times(converted):
    plain = read_recordings(converted / "ca")["lc11"]["a.pt"]
    again = read_recordings(converted / "nwb")["lc11"]["a.nwb"]
    assert list(again) == list(plain) == [5, 12]
    for code, entry in plain.items():
        torch.testing.assert_close(again[code]["t_axis"], entry["t_axis"], rtol=0, atol=1e-6)
        assert list(again[code]["neuron"]) == list(entry["neuron"])
        for uid, neuron in entry["neuron"].items():
            own = again[code]["neuron"][uid]
            assert torch.equal(own["traces"], neuron["traces"])
            assert (own["azi_shift"], own["ele_shift"]) == (
                neuron["azi_shift"], neuron["ele_shift"]
            )  # fmt: skip
    movies, own = (
        read_movies(folder, rate_hz=60) for folder in (converted / "mov", converted / "nwb/lc11")
    )
    assert own.first == movies.first == {5: -6, 12: -6}
    for code, frames in movies.items():
        assert torch.equal(own[code], frames)


def test_pictures_are_stored_as_nwb_has_them(converted):
    """The schema's order is (frames, x, y): 9 columns before 6 rows."""
    with pynwb.NWBHDF5IO(str(converted / "nwb/lc11/a.nwb"), "r") as io:
        held = io.read()
        assert held.stimulus_template["vstim_5"].data.shape == (30, 9, 6)
        assert held.trials["stimulus"].data[:].tolist() == [5, 5, 5, 12]
        series = held.processing["ophys"]["DfOverF"]["dff"]
        assert series.unit == "dF/F"
        assert series.data.shape == (3 * 20 + 9, 2)
        assert "not kept" in held.session_description


def write_by_hand(path, *, onsets=(10.0, 20.0), container="DfOverF", columns=("azi", "ele"),
                  onset_column="onset_time", unit="dF/F", numbers=None, late=0.0,
                  turned=False):  # fmt: skip
    """Write a file of a free-running microscope at 8 Hz, 30 s, conversion 0.5: dff is 0.5 t.

    It holds the second neuron of the table, or both under their ``numbers``. ``late`` is added to
    the onsets of the table of trials, ``turned`` lays neurons before times.
    """
    held = pynwb.NWBFile("hand", "hand", datetime.datetime(2020, 1, 1, tzinfo=UTC))
    plane = held.create_imaging_plane(
        name="p", description="p", excitation_lambda=900.0, indicator="g", location="l",
        device=held.create_device("d"),
        optical_channel=pynwb.ophys.OpticalChannel(
            name="c", description="c", emission_lambda=500.0
        ),
    )  # fmt: skip
    table = pynwb.ophys.PlaneSegmentation(name="s", description="s", imaging_plane=plane)
    for column in columns:
        table.add_column(f"{column}_shift", "deg")
    if numbers:
        table.add_column("neuron", "number")
    for k, shift in enumerate((1.0, 2.0)):
        named = {"neuron": numbers[k]} if numbers else {}
        shifts = {f"{c}_shift": shift for c in columns}
        table.add_roi(pixel_mask=[(0, 0, 1.0)], **shifts, **named)
    shown = [0, 1] if numbers else [1]
    region = table.create_roi_table_region(region=shown, description="those recorded")
    times = np.arange(240) / 8
    series = pynwb.ophys.RoiResponseSeries(
        name="r", data=np.stack([times] * len(shown), 0 if turned else 1), rois=region, unit=unit,
        conversion=0.5, starting_time=0.0, rate=8.0,
    )  # fmt: skip
    seg = pynwb.ophys.ImageSegmentation(name="seg", plane_segmentations=[table])
    module = held.create_processing_module("ophys", "o")
    module.add(seg)
    wrap = getattr(pynwb.ophys, container) if container else None
    module.add(wrap(roi_response_series=series) if wrap else series)
    held.add_trial_column("stimulus", "s")
    held.add_trial_column(onset_column, "o")
    for onset in onsets:
        held.add_trial(start_time=onset - 1, stop_time=onset + 2, stimulus="5",
                       **{onset_column: onset + late})  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(held)


def test_a_free_running_clock_keeps_every_trial_at_its_own_times(tmp_path):
    """Onsets at 10, 20 and 25.05 s of an 8 Hz clock: the third trial's samples lie elsewhere."""
    write_by_hand(tmp_path / "lc11" / "a.nwb", onsets=(10.0, 20.0, 25.05))
    sessions = read_recordings(tmp_path)["lc11"]
    assert list(sessions) == ["a.nwb", "a.nwb 2"]
    first, second = (sessions[name][5] for name in sessions)
    assert list(first["neuron"]) == [1]  # the id of the table's second row
    assert first["neuron"][1]["traces"].shape == (2, 25)
    assert second["neuron"][1]["traces"].shape == (1, 24)
    assert first["neuron"][1]["azi_shift"] == 2.0
    np.testing.assert_allclose(first["t_axis"], np.arange(-8, 17) / 8, atol=TOLERANCE_S)
    np.testing.assert_allclose(second["t_axis"][:2], [24.125 - 25.05, 24.25 - 25.05], atol=1e-6)
    for entry, onset in ((first, 10.0), (second, 25.05)):
        expected = 0.5 * (entry["t_axis"] + onset)
        torch.testing.assert_close(entry["neuron"][1]["traces"][0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("unit", "share", "said"),
    [
        ("dF/F", 1.0, ""),
        ("percent", 0.01, "has the unit percent: read as hundredths"),
        ("%", 0.01, "has the unit %: read as hundredths"),
        ("dF/F0 (%)", 0.01, r"has the unit dF/F0 (%): read as hundredths"),
        ("\N{GREEK CAPITAL LETTER DELTA}F/F", 1.0, ""),
        ("lumens", 1.0, "has the unit lumens: read as dF/F"),
    ],
)
def test_percent_are_hundredths_and_other_units_are_said(tmp_path, unit, share, said, caplog):
    write_by_hand(tmp_path / "lc11" / "a.nwb", onsets=(10.0,), unit=unit)
    entry = read_recordings(tmp_path)["lc11"]["a.nwb"][5]
    expected = share * 0.5 * (entry["t_axis"] + 10.0)
    torch.testing.assert_close(entry["neuron"][1]["traces"][0], expected, rtol=1e-5, atol=1e-6)
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


def test_a_series_of_its_own_counts_where_its_unit_is_dff(tmp_path):
    write_by_hand(tmp_path / "lc11" / "a.nwb", onsets=(10.0,), container=None, unit="percent dF/F")
    entry = read_recordings(tmp_path)["lc11"]["a.nwb"][5]
    expected = 0.01 * 0.5 * (entry["t_axis"] + 10.0)
    torch.testing.assert_close(entry["neuron"][1]["traces"][0], expected, rtol=1e-5, atol=1e-6)


def test_pictures_as_bytes_are_grey_by_their_conversion(tmp_path):
    held = pynwb.NWBFile("hand", "hand", datetime.datetime(2020, 1, 1, tzinfo=UTC))
    held.add_stimulus_template(pynwb.image.ImageSeries(
        name="vstim_5", data=np.array([[[0, 51, 255]]], np.uint8), unit="grey", format="raw",
        starting_time=0.0, rate=60.0, conversion=1 / 255,
    ))  # fmt: skip
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "w") as io:
        io.write(held)
    movie = read_movies(tmp_path, rate_hz=60)[5]
    torch.testing.assert_close(movie, torch.tensor([[[0.0], [0.2], [1.0]]]))  # one column


def show(path, presented, trials):
    """Write a file whose movies are stimuli on the session's clock, [(name, begin, grey)]."""
    held = pynwb.NWBFile("hand", "hand", datetime.datetime(2020, 1, 1, tzinfo=UTC))
    if trials:
        held.add_trial_column("stimulus", "s")
        held.add_trial_column("onset_time", "o")
    for stimulus, onset in trials:
        held.add_trial(start_time=onset - 1, stop_time=onset + 2, stimulus=stimulus,
                       onset_time=onset)  # fmt: skip
    for name, begin, grey in presented:
        held.add_stimulus(pynwb.image.ImageSeries(
            name=name, data=np.full((4, 3, 2), grey, np.float32), unit="grey", format="raw",
            timestamps=begin + np.arange(4) / 60,
        ))  # fmt: skip
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(held)


def test_movies_as_they_were_shown_count_from_the_onset_of_their_trial(tmp_path):
    presented = [("vstim_5_1", 20.0, 0.5), ("vstim_5_2", 40.0, 0.5), ("vstim_7", 29.9, 0.25),
                 ("screen", 0.0, 1.0)]  # fmt: skip
    show(tmp_path / "a.nwb", presented, [(5, 20.0), (7, 30.0), (5, 40.0)])
    movies = read_movies(tmp_path, rate_hz=60)
    assert list(movies) == [5, 7]
    assert movies[5].shape == (4, 2, 3)
    assert movies.first == {7: -6}
    assert (float(movies[5].mean()), float(movies[7].mean())) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("presented", "trials", "line"),
    [
        ([("vstim_5", 20.0, 0.5)], [], "vstim_5: its times are those of the session's clock"),
        ([("vstim_5", 20.0, 0.5)], [(6, 20.0)], "begins at 20 s, within no trial of vstim_5"),
        (
            [("vstim_5_1", 20.0, 0.5), ("vstim_5_2", 40.0, 0.6)], [(5, 20.0), (5, 40.0)],
            "vstim_5_2: another movie than vstim_5 before it",
        ),
    ],
)  # fmt: skip
def test_a_shown_movie_without_an_onset_is_asked_about(tmp_path, presented, trials, line):
    show(tmp_path / "a.nwb", presented, trials)
    with pytest.raises(InputError, match=line):
        read_movies(tmp_path, rate_hz=60)


def test_writing_warns_of_nothing(converted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convert_all([converted / "ca"], converted / "quiet", form="nwb") == (1, [])


def test_faults_of_movies_name_the_file(converted):
    """Bytes are no grey levels, and one number is one movie; nothing else is held up by it."""
    movies = converted / "mov"
    other = {"vstim_5": {"rect_mov": torch.zeros(30, 6, 9), "t_axis": torch.arange(30) / 60}}
    torch.save(other, movies / "vstim_5b.pt")
    bad = {"vstim_9": {"rect_mov": torch.full((3, 6, 9), 255.0), "t_axis": torch.arange(3) / 60}}
    torch.save(bad, movies / "vstim_9.pt")
    written, faults = convert_all([converted / "ca", movies], converted / "other", form="nwb")
    assert written == 1
    assert sorted(faults) == [
        f"{movies}/vstim_5b.pt: vstim_5: another file holds another movie of this number; name one",
        f"{movies}/vstim_9.pt: vstim_9: pixels range from 255 to 255; expected 0 (black) to 1 "
        "(white)",
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"numbers": ("a", "b")}, r"a\.nwb: neuron a; expected whole numbers in column neuron"),
        ({"numbers": (11.5, 12.0)}, "neuron 11.5; expected whole numbers"),
        ({"numbers": (11, 11)}, "2 columns of dF/F are neuron 11; expected numbers of their own"),
        ({"container": "Fluorescence"}, r"0 series of dF/F \(none\), in containers DfOverF"),
        ({"container": None, "unit": "lumens"}, r"0 series of dF/F \(none\)"),
        ({"late": -9.0}, "from 9 to 12 s has its onset at 1 s; expected within it"),
        ({"late": 9990.0}, "has its onset at 10000 s; .* in seconds of the session's clock"),
        ({"late": float("nan")}, "has its onset at nan s"),
        ({"turned": True, "numbers": (3, 4)}, r"dF/F of 2 x 240 values; expected \(times, neurons"),
        ({"columns": ("azi",)}, "the table s has no column ele_shift"),
        ({"onset_column": "begin"}, "the table of trials has no column onset_time"),
        ({"onsets": (100.0,)}, "holds no sample of dF/F, which runs from 0 to 29.875 s"),
    ],
)
def test_what_is_not_named_is_asked_for(tmp_path, options, line):
    write_by_hand(tmp_path / "lc11" / "a.nwb", **options)
    with pytest.raises(InputError, match=line):
        read_recordings(tmp_path)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "lc11").mkdir()
    (tmp_path / "lc11" / "a.nwb").write_bytes(b"no HDF5 at all")
    with pytest.raises(InputError, match=r"a\.nwb: cannot be read as NWB"):
        read_recordings(tmp_path)


def test_neurons_that_move_between_stimuli_are_refused(converted):
    path = converted / "ca" / "lc11" / "a.pt"
    session = torch.load(path)
    session["vstim_12"]["neuron"][7]["azi_shift"] = torch.tensor(3.0)
    torch.save(session, path)
    written, faults = convert_all([path], converted / "other", form="nwb")
    assert written == 0
    assert "neuron 7 has shifts" in faults[0]
