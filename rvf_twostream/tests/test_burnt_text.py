"""--find_text: names in a single frame are found, clean pictures give no alarm."""

import cv2
import numpy as np
import pytest

from demo.phantom import draw_movie
from demo.synthetic import draw_heart, draw_population
from inputs.burnt_text import find_text, text_reader
from inputs.contact_sheet import save_picture
from inputs.video import read_video
from little import assert_one_line, call_script, texture, write_data_set

FIRST = ("JANE", "MARIA", "OTTO", "Wilhelm", "Ann", "Zoe", "PETER", "Luca", "Ingrid", "Tom")
LAST = ("DOE", "Meyer", "SMITH", "Kowalski", "Nguyen", "Li", "O NEILL", "Garcia", "Huber", "Quack")
SCALES = (0.4, 0.6, 0.9)  # of the font: capitals of 9, 13 and 20 pixels
SIZE = (300, 400)


@pytest.fixture(scope="module")
def reader():
    pytest.importorskip("rapidocr_onnxruntime", reason="requirements-text.txt is not installed")
    return text_reader()


def named(movie, rng, scale):
    """Return the movie with a name in one frame, and its box (top, left, bottom, right)."""
    text = f"{LAST[rng.integers(10)]} {FIRST[rng.integers(10)]}"
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = int(rng.integers(2, SIZE[1] - 2 - width))
    base = int(rng.integers(height + 2, SIZE[0] - 4))
    movie, k = movie.copy(), int(rng.integers(len(movie)))
    place = (left, base)
    cv2.putText(movie[k], text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
    return movie, (base - height, left, base + 3, left + width)


def hits(places, box):
    """Say whether a place covers a third of the width of a box (top, left, bottom, right)."""
    for place in places:
        across = min(place.column + place.width, box[3]) - max(place.column, box[1])
        down = min(place.row + place.height, box[2]) - max(place.row, box[0])
        if across > (box[3] - box[1]) / 3 and down > 0:
            return True
    return False


def phantoms(n):
    """Return n movies (34, 300, 400) of the phantom."""
    movies = []
    for k, patient in enumerate(draw_population(n, 0, "strong", False)):
        rng = np.random.default_rng(k)
        heart = draw_heart(patient, rng, n_frames=34, frame_rate_hz=30)
        movies.append(draw_movie(heart, 34, *SIZE, rng))
    return movies


def test_a_name_is_found_and_its_letters_stay_out_of_the_table(reader, tmp_path):
    movie, box = named(texture(34, *SIZE) // 4, np.random.default_rng(1), 0.6)
    save_picture(tmp_path, "p01a", movie.min(axis=0), movie.max(axis=0))
    save_picture(tmp_path, "p02a", np.zeros(SIZE), texture(1, *SIZE)[0])
    assert hits(reader(movie.max(axis=0)), box)
    assert find_text(tmp_path, ["p01a", "p02a"]) == 1
    table = (tmp_path / "deid_text.csv").read_text()
    assert table.splitlines()[1].startswith("p01a,maximum,")
    assert not [word for word in (*FIRST, *LAST) if word in table]


@pytest.mark.slow
def test_names_in_any_single_frame_of_two_hundred_movies(reader, record_testsuite_property):
    rng, movies, read = np.random.default_rng(0), phantoms(6), {scale: [] for scale in SCALES}
    for k in range(200):
        scale = SCALES[k % 3]
        movie, box = named(movies[k % 6], rng, scale)
        read[scale].append(hits(reader(movie.max(axis=0)), box))
    shares = {scale: round(float(np.mean(v)), 3) for scale, v in read.items()}
    record_testsuite_property("names found by scale of the font", str(shares))
    print(shares)
    assert np.mean([hit for v in read.values() for hit in v]) >= 0.95


@pytest.mark.data
def test_clean_real_clips_give_no_alarm(reader, real_dir):
    alarms = []
    for path in sorted(real_dir.glob("*.mp4")):
        frames, _ = read_video(path)
        for picture in (frames.max(axis=0), frames.min(axis=0)):
            alarms.append(bool(reader(np.clip(picture, 0, 255).astype(np.uint8))))
    assert len(alarms) >= 10
    assert np.mean(alarms) <= 0.05


def test_a_missing_package_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rapidocr_onnxruntime", None)
    root = write_data_set(tmp_path / "set", ids=("p01", "p02"), n=32, rows=32, cols=32)
    done = call_script("preprocess.py", "--root", root, "--find_text")
    assert_one_line(done, "requirements-text.txt")
    assert not (root / "manifest.csv").exists()
