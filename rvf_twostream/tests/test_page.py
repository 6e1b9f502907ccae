"""What the pages say beside the AUC: kinds of movies, the gradient outside the fan, decisions."""

import numpy as np
import pytest

from analysis.figures import calibration, roc
from analysis.metrics import against_baselines, beside_table, decisions, summarise
from common.files import InputError
from common.tables import read_rows
from demo.phantom import draw_movie, screen
from demo.synthetic import draw_heart, draw_population
from inputs.fan import fan_clips, fan_of, outside_share
from inputs.frames import movie_from_frames
from inputs.movies import Movie
from inputs.resize import resize_frame
from inputs.storage import Scaling, stored_flow, stored_grey
from inputs.utils import save_array
from runs.pictures import KINDS, beside_gradient, choose_kinds, known_rows
from runs.prediction import numbers_table
from runs.run_report import result_figures

SCALING = {"grey": Scaling.zscore(0.2, 0.25), "of": Scaling.zscore(-0.1, 2.0)}


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """Return a stored phantom movie of 32 x 32 with burnt-in text, and its true fan."""
    folder = tmp_path_factory.mktemp("movie")
    patient = draw_population(1, 3, "strong", False)[0]
    heart = draw_heart(patient, np.random.default_rng(0), n_frames=24, frame_rate_hz=20)
    frames = draw_movie(heart, 24, 120, 160, np.random.default_rng(1)).astype(np.float32)
    grey = stored_grey(movie_from_frames(frames, 32, 32), "compact")
    save_array(folder / "grey.npy", grey)
    flow = np.random.default_rng(2).standard_normal((24, 32, 32, 2))
    save_array(folder / "of.npy", stored_flow(flow, "compact"))
    true = resize_frame(screen(120, 160)[2].astype(np.float32), 32, 32) > 0.5
    return Movie("p00a", folder / "grey.npy", folder / "of.npy", 3, 24), true


def test_the_fan_of_a_small_movie_is_that_of_the_scanner(movie):
    fan, true = fan_of(movie[0]), movie[1]
    assert (fan & true).sum() / (fan | true).sum() > 0.85
    assert not fan[:4, :12].any()  # the burnt-in word


def test_a_movie_without_grey_levels_has_no_fan(movie, tmp_path):
    save_array(tmp_path / "z.npy", np.random.default_rng(0).standard_normal((24, 32, 32, 1)))
    assert fan_of(movie[0]._replace(grey_path=tmp_path / "z.npy")) is None


def test_outside_the_fan_nothing_is_left_and_inside_all(movie):
    film, fan = movie[0], fan_of(movie[0])
    from inputs.movies import movie_clips

    whole, cut = (f(film, [0, 8], 16, SCALING) for f in (movie_clips, fan_clips))
    for stream, black in (("grey", -0.8), ("of", 0.05)):
        np.testing.assert_array_equal(cut[stream][:, :, fan], whole[stream][:, :, fan])
        np.testing.assert_allclose(cut[stream][:, :, ~fan], black, atol=1e-7)


def test_share_of_a_gradient_outside(movie):
    fan = np.zeros((4, 5), bool)
    fan[1:3, 1:3] = True
    gradient = np.zeros((3, 4, 5, 2))
    gradient[0, 1, 1] = 1, -2
    gradient[2, 0, 4] = -1, 0
    assert outside_share(gradient, fan) == pytest.approx(0.25)
    assert outside_share(gradient * 0, fan) is None
    fan = fan_of(movie[0])
    even = {"grey": np.ones((16, 32, 32, 1)), "of": np.ones((16, 32, 32, 2))}
    row = beside_gradient(movie[0], even, {"y": "1", "probability": "0.4"})
    assert row["kind"] == "failure, missed"
    for name in ("grey", "of", "area"):
        assert row[f"outside_{name}"] == pytest.approx(np.mean(~fan))


def test_a_movie_of_each_kind_the_typical_one_first():
    table = {"a": (1, 0.9), "b": (1, 0.7), "c": (1, 0.6), "d": (1, 0.2), "e": (0, 0.1)}
    table |= {"f": (0, 0.4), "g": (0, 0.8), "h": (0, 0.3)}
    rows = [
        {"file": stem, "y": str(y), "probability": str(p), "starts": "0 4 8"}
        for stem, (y, p) in table.items()
    ]
    movies = [Movie(stem, None, None, 3 * y, 24) for stem, (y, _) in table.items()]
    chosen = choose_kinds(movies, 6, rows)
    # Two kinds have one movie; the second turn goes on with the others.
    assert [movie.stem for movie, _ in chosen] == ["b", "h", "d", "g", "c", "f"]
    assert {start for _, start in chosen} == {4}
    assert [m.stem for m, _ in choose_kinds(movies[:3], 4, rows)] == ["b", "c", "a"]
    assert len(KINDS) == 4


def test_predictions_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("set,id,y\ntest,p,1\n")
    with pytest.raises(InputError, match=r"patients.csv: no column file; give predictions.csv"):
        known_rows(path)


@pytest.mark.parametrize(
    "row", ["a,True,0.5,0 4", "a,1,50,0 4", "a,1,x,0 4", "a,1,0.5,", "a,1,0.5,-3"]
)
def test_predictions_of_other_numbers_are_refused(tmp_path, row):
    path = tmp_path / "predictions.csv"
    path.write_text(f"file,y,probability,starts\n{row}\n")
    with pytest.raises(InputError, match="expected 0 or 1, 0 to 1, frames"):
        known_rows(path)
    path.write_text("file,y,probability,starts\na,1,0.5,0 4\n")
    assert known_rows(path)["a"]["starts"] == "0 4"


def test_captions_say_what_a_movie_was_called(tmp_path):
    (tmp_path / "index.csv").write_text(
        'name,file,kind,movie_probability,probability\nRVF_0,p00a,"failure, missed",0.31,0.52\n'
    )
    results = {"name": "n", "predictions": tmp_path, "pictures": tmp_path}
    np.savez(tmp_path / "RVF_0.npz", cam_grey=np.ones((2, 2)), cam_of=np.zeros((2, 2)))
    captions = [figure["caption"] for figure in result_figures(tmp_path, results)]
    assert not any("Grad-CAM" in caption for caption in captions)  # the same at every place
    np.savez(tmp_path / "RVF_0.npz", cam_grey=np.ones((2, 2)), cam_of=np.eye(2))
    assert "Grad-CAM" in result_figures(tmp_path, results)[4]["caption"]
    wanted = "p00a: failure, missed, probability 0.31 (0.52 of this clip)."
    assert captions[3].startswith(wanted)
    assert "numbers are patients per point" in captions[2]


def test_decisions_and_what_stands_beside():
    y = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    score = np.array([0.9, 0.6, 0.5, 0.7, 0.2, 0.1, 0.4])
    numbers = summarise(y, score)
    header, rows = decisions({"test": {"patients": numbers}})
    row = dict(zip(header, rows[0], strict=True))
    assert row["failures called failure"] == 2
    assert row["failures missed"] == 1
    assert row["others called failure"] == 1
    assert row["others called none"] == 3
    assert (row["sensitivity"], row["specificity"]) == ("0.667", "0.750")
    result = {"test": {"patients": numbers, "movies": numbers}}
    assert [row[0] for row in numbers_table({"val": result["test"]})[1]] == ["validation"] * 2
    _, rows = beside_table(result, {"motion": {"test": summarise(y, -score)}})
    assert [row[:4] for row in rows] == [
        ("the network", "test", 7, "0.833"),
        ("motion", "test", 7, "0.167"),
    ]


def test_a_network_that_adds_nothing_to_a_baseline_is_told():
    def told(network, interval, other):
        own = {"test": {"patients": {"auc": network, "auc_ci95_bootstrap": interval}}}
        what = "logistic regression on motion numbers"
        beside = {"the network, blanked": {"test": {"auc": 0.99}}, what: {"test": {"auc": other}}}
        return against_baselines(own, beside)

    tail = "of the test patients (AUC 0.885) than the logistic regression on motion numbers (0.886)"
    assert told(0.885, (0.81, 0.95), 0.886) == [f"The network does not tell more {tail}."]
    assert told(0.885, (0.81, 0.95), 0.85)[0].endswith("(0.850), which lies within its interval.")
    assert told(0.885, (0.81, 0.95), 0.70)[0].endswith("(0.700), which lies below its interval.")
    assert told(None, None, 0.7) == []
    assert against_baselines({}, {}) == []


def test_calibration_shows_the_patients_of_each_point(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("analysis.figures.save_figure", lambda figure, path: shown.append(figure))
    calibration([("test", [(0.2, 0.1, 15), (0.7, 0.8, 16)])], tmp_path / "c.png")
    texts = {text.get_text() for text in shown[0].axes[0].texts}
    assert texts == {"15", "16"}


def test_the_points_of_a_roc_lie_beside_it(tmp_path):
    y, score = np.array([1, 0, 1, 0], bool), np.array([0.9, 0.6, 0.5, 0.1])
    path = roc([("test", y, score)], tmp_path / "roc.png")
    rows = read_rows(path.with_suffix(".csv"))
    points = [(float(r["one_minus_specificity"]), float(r["sensitivity"])) for r in rows]
    assert points == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    assert [r["curve"] for r in rows] == ["test"] * 5
