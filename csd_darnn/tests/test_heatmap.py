"""Maps, their un-permuting, still pictures and movies."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from analysis.heatmap import (
    LONG_SIDE,
    blend,
    compute_map,
    limits,
    map_agreement,
    movie_frames,
    times_uniform,
    to_image,
    unpermute,
    write_movie,
)
from analysis.map_figures import draw_bars, draw_size, draw_stills, edges
from common.files import InputError
from inputs.movie_files import read_movie
from inputs.scales import NO_SCALES, Known, Scales
from runs.displays import driver_auc

FOLDER = Path(__file__).resolve().parents[1]


def example(n=6, shape=(5, 7), seed=0):
    """Return (frames, maps), each (n, H, W)."""
    rng = np.random.default_rng(seed)
    return rng.normal(100, 10, (n, *shape)), rng.random((n, *shape))


@settings(deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.permutations(range(n))))
def test_unpermute_is_the_scatter(permutation):
    pixels = np.arange(3 * len(permutation)).reshape(3, -1)
    slots = pixels[:, permutation]  # slot s holds pixel permutation[s]
    np.testing.assert_array_equal(unpermute(slots, permutation), pixels)


def test_maps_are_the_formulas():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 9)).astype(np.float32)
    alpha = rng.dirichlet(np.ones(9), 4).astype(np.float32)
    np.testing.assert_array_equal(compute_map("reference", alpha, x), abs(alpha * x))
    np.testing.assert_array_equal(compute_map("signed", alpha, x), alpha * x)
    np.testing.assert_array_equal(compute_map("control", alpha, x), abs(x))
    np.testing.assert_array_equal(compute_map("attention", alpha, x), alpha)
    np.testing.assert_allclose(times_uniform(np.full((2, 5), 0.2)), 1)
    with pytest.raises(InputError, match="expected one of"):
        compute_map("heat", alpha, x)


def test_pixels_outside_the_image_are_left_out():
    image = to_image(np.array([5.0, 6.0, 7.0]), [3, -1, 0], (2, 2))
    np.testing.assert_array_equal(image, [[7, 0], [0, 5]])


def test_agreement_tells_a_repeated_control_from_noise():
    rng = np.random.default_rng(2)
    control = rng.random((30, 200))
    same = map_agreement(2 * control, control)
    other = map_agreement(rng.random((30, 200)), control)
    assert same["auc"] == pytest.approx(1)
    assert same["correlation"] == pytest.approx(1)
    assert abs(other["auc"] - 0.5) < 0.05
    assert map_agreement(np.ones((3, 200)), control[:3])["auc"] is None


def test_constant_frame_and_map_give_the_middle_colour():
    flat = np.full((3, 4), 7.0)
    rgb = blend(flat, flat, limits(flat), limits(flat))
    middle = blend(np.array([[0.5]]), np.array([[0.5]]), (0, 1), (0, 1))
    np.testing.assert_allclose(rgb, np.broadcast_to(middle, rgb.shape))


@pytest.mark.parametrize("clim", ["frame", "global", "p99"])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (18, 23), (72, 91)])
def test_movie_has_every_frame_in_even_size(tmp_path, clim, shape):
    frames, maps = example(4, shape)
    maps[2] = 0.3  # a constant map
    paths = write_movie(
        tmp_path / "heatmap", frames, maps, clim=clim, title="map", target_pixels=[0],
        scales=Scales(rate_hz=Known(10.0), column_um=Known(50.0)), first_frame=9,
    )  # fmt: skip
    assert [path.name for path in paths] == ["heatmap.mp4", "heatmap.gif"]
    movie = read_movie(paths[0], gray=True)
    assert movie.shape[0] == 4
    assert movie.shape[1] % 2 == movie.shape[2] % 2 == 0
    with Image.open(paths[1]) as gif:
        assert gif.n_frames == 4
        assert gif.info["duration"] == 200
        assert gif.size == movie.shape[:0:-1]


def test_long_gif_shows_every_kth_frame_and_says_so(tmp_path):
    frames, maps = example(25, (3, 3))
    (path,) = write_movie(tmp_path / "heatmap", frames, maps, kinds=("gif",), most_gif_frames=10)
    assert path.name == "heatmap_every3.gif"
    with Image.open(path) as gif:
        assert gif.n_frames == 9


def test_picture_shows_the_blend_and_the_hatched_target():
    frames, maps = example(1, (4, 4))
    plain = next(movie_frames(frames, maps))
    hatched = next(movie_frames(frames, maps, target_pixels=[5]))
    zoom = LONG_SIDE // 4
    inner = plain[30 + 1 : 30 + 4 * zoom : zoom, 12 + 1 : 12 + 4 * zoom : zoom]
    expected = blend(frames[0], maps[0], limits(frames[0]), limits(maps[0]))
    np.testing.assert_array_equal(inner, (255 * expected).round())
    changed = (plain != hatched).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min() - 30) // zoom == (rows.max() - 30) // zoom == 1
    assert (columns.min() - 12) // zoom == (columns.max() - 12) // zoom == 1
    assert changed.sum() > 0.9 * zoom**2


def test_signed_map_is_centred_on_zero():
    frames = np.zeros((1, 2, 2))
    maps = np.array([[[0.0, 1.0], [-3.0, 0.0]]])
    picture = next(movie_frames(frames, maps, diverging=True))
    middle = blend(frames[0], np.zeros((2, 2)), (0, 0), (-3, 3))[0, 0]
    np.testing.assert_array_equal(picture[35, 20], (255 * middle).round())


def test_a_steady_movie_keeps_its_grays_and_frames_the_driver():
    frames = np.stack([np.full((8, 8), level) for level in (0.0, 10.0)])
    frames[:, 0, 0] = (0, 20)
    maps = np.broadcast_to(np.arange(64.0).reshape(8, 8), (2, 8, 8))
    outline = np.zeros((8, 8), bool)
    outline[2:5, 3:6] = True
    plain = list(movie_frames(frames, maps, clim="global", steady=True))
    zoom = LONG_SIDE // 8
    for frame, picture in zip(frames, plain, strict=True):
        expected = blend(frame, maps[0], (0, 20), (0, 63))
        inner = picture[30 + 1 : 30 + 8 * zoom : zoom, 12 + 1 : 12 + 8 * zoom : zoom]
        np.testing.assert_array_equal(inner, (255 * expected).round())
    framed = next(movie_frames(frames, maps, clim="global", steady=True, outline=outline))
    rows, columns = np.nonzero((framed != plain[0]).any(axis=2))
    assert ((rows.min() - 30) / zoom, (rows.max() + 1 - 30) / zoom) == (2 - 2 / zoom, 5 + 2 / zoom)
    assert (columns.min() - 12, columns.max() + 1 - 12) == (3 * zoom - 2, 6 * zoom + 2)
    middle = framed[30 + 3 * zoom : 30 + 4 * zoom, 12 + 4 * zoom : 12 + 5 * zoom]
    assert (middle == plain[0][30 + 3 * zoom : 30 + 4 * zoom, 12 + 4 * zoom : 12 + 5 * zoom]).all()


def test_wrong_number_of_frames_is_refused_and_writes_nothing(tmp_path):
    frames, maps = example()
    with pytest.raises(InputError, match="5 frames"):
        write_movie(tmp_path / "heatmap", frames[:5], maps)
    with pytest.raises(InputError, match="clim"):
        write_movie(tmp_path / "heatmap", frames, maps, clim="row")
    assert list(tmp_path.iterdir()) == []


def test_movie_needs_no_ffmpeg_on_the_path(tmp_path):
    code = (
        "import numpy as np; from analysis.heatmap import write_movie; from pathlib import Path;"
        "print(*write_movie(Path('h'), np.ones((3, 4, 5)), np.random.rand(3, 4, 5)))"
    )
    environment = {**os.environ, "PATH": "", "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["h.mp4", "h.gif"], done.stderr
    assert read_movie(tmp_path / "h.mp4", gray=True).shape[0] == 3


def test_an_outline_runs_along_its_pixels():
    mask = np.zeros((6, 7), bool)
    mask[2:4, 0:3] = True
    lines = edges(mask)
    assert lines.shape == (10, 2, 2)
    assert np.abs(np.diff(lines, axis=1)).sum((1, 2)).tolist() == [1.0] * 10  # one pixel each
    assert lines[..., 0].min() == -0.5
    assert lines[..., 0].max() == 2.5
    assert (lines[..., 1].min(), lines[..., 1].max()) == (1.5, 3.5)
    assert {tuple(end) for end in lines.reshape(-1, 2)} >= {(-0.5, 1.5), (2.5, 1.5), (2.5, 3.5)}


def test_still_pictures_have_their_numbers_beside_them(tmp_path):
    images = {"attention": np.eye(4, 5), "control": np.full((4, 5), 2.0)}
    path = draw_stills(
        tmp_path / "maps.png", images, target_pixels=[3, -1], notes={"attention": "r 1"},
        outline=np.eye(4, 5) > 0, outline_label="driver",
    )  # fmt: skip
    with Image.open(path) as picture:
        assert picture.size[0] > 600
    axis = Figure().subplots()
    size = Known(200.0, "flag")
    words = draw_size(axis, (10, 20), Scales(row_um=Known(100.0, "flag"), column_um=size))
    assert words == "field 1 x 4 mm, bar 1 mm"
    assert np.ptp(axis.lines[0].get_xdata()) == 5  # pixels of 0.2 mm
    assert draw_size(axis, (10, 20), NO_SCALES) == ""
    table = np.genfromtxt(path.with_suffix(".csv"), delimiter=",", names=True)
    np.testing.assert_array_equal(table["attention"], images["attention"].ravel())
    np.testing.assert_array_equal(table["row"] * 5 + table["column"], table["pixel"])
    bars = draw_bars(
        tmp_path / "bars.png", {"permutation": np.arange(50)}, [f"s{k}" for k in range(50)]
    )
    assert len(bars.with_suffix(".csv").read_text().splitlines()) == 51


def test_a_map_of_the_driver_scores_by_its_size_where_it_is_known():
    drivers = np.zeros((3, 4), bool)
    drivers[1, :2] = True
    image = np.where(drivers, -2.0, 1.0)  # a signed map: its size counts
    image[0, 0] = np.nan  # the target has no value of its own
    assert driver_auc(image, drivers) == 1.0
    assert driver_auc(np.ones((3, 4)), drivers) == 0.5
    assert driver_auc(image, np.zeros((3, 4), bool)) is None
