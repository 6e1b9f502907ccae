"""Data sets of clips: order, starts, batches, filling, checks of movies."""

import numpy as np
import pytest

from common.files import InputError
from inputs.clips import DataGeneratorEchonet, DataGeneratorMerged, DataGeneratorMerged_aug
from inputs.movies import fixed_starts, list_pairs, movie_clips, random_starts, read_clip
from inputs.utils import save_array

SIZE = {"nframes": 8, "nrows": 12, "ncols": 14}


@pytest.fixture
def root(tmp_path):
    """Five movies whose frame k holds the number k; the flow holds it with a minus sign."""
    for k in range(5):
        frames = np.arange(10 + k, dtype=np.float32)[:, None, None, None]
        grey = frames * np.ones((1, 12, 14, 1), np.float32)
        save_array(tmp_path / "greyscale" / "split0_train" / f"p{k}a.npy", grey)
        flow = np.concatenate([-grey, 100 - grey], axis=-1)
        save_array(tmp_path / "OF" / "split0_train" / f"p{k}a.npy", flow)
    return tmp_path


CLASSMAP = {f"p{k}a": k % 4 for k in range(5)}


def pairs(root, **changes):
    return list_pairs(root, 0, "train", CLASSMAP, **{**SIZE, **changes})


def test_pairs_are_sorted_and_need_a_class(root):
    assert [m.stem for m in pairs(root)] == ["p0a", "p1a", "p2a", "p3a", "p4a"]
    movies = list_pairs(root, 0, "train", {"p1a": 3}, **SIZE)
    assert [(m.stem, m.label_class, m.n_frames) for m in movies] == [("p1a", 3, 11)]


def test_faults_of_movies_are_reported_together(root):
    bad = np.zeros((10, 12, 14, 1), np.float32)
    bad[3, 4, 5] = np.nan
    folder = root / "greyscale" / "split0_train"
    save_array(folder / "p0a.npy", bad)
    save_array(folder / "p1a.npy", np.zeros((11, 10, 14, 1), np.float32))
    (root / "OF" / "split0_train" / "p2a.npy").unlink()
    save_array(folder / "p3a.npy", np.zeros((12, 12, 14, 1), np.float32))
    with pytest.raises(InputError) as error:
        pairs(root)
    for text in (
        "p0a.npy: holds NaN",
        "(11, 10, 14, 1)",
        "p2a.npy: flow missing",
        "13 fields for 12",
    ):
        assert text in str(error.value)


def test_short_movies_are_faults_or_collected(root):
    with pytest.raises(InputError, match=r"p0a\.npy: 10 frames, 12 needed"):
        pairs(root, nframes=12)
    short = []
    assert len(pairs(root, nframes=12, short=short)) == 3
    assert short == ["p0a", "p1a"]
    with pytest.raises(InputError, match=r"split_data\.py"):
        list_pairs(root, 1, "train", CLASSMAP, **SIZE)


def test_starts():
    assert fixed_starts(40, 32, 5) == [0, 2, 4, 6, 8]
    assert fixed_starts(32, 32, 5) == [0] * 5
    drawn = random_starts(40, 32, 500, np.random.default_rng(0))
    assert set(drawn) == set(range(9))
    assert random_starts(32, 32, 3, np.random.default_rng(0)) == [0, 0, 0]


def test_a_clip_is_exactly_its_frames(root):
    movie = pairs(root)[2]
    clip = read_clip(movie.grey_path, 3, 8)
    np.testing.assert_array_equal(clip[:, 0, 0, 0], np.arange(3, 11))
    clips = movie_clips(movie, [0, 4], 8)
    assert clips["grey"].shape == (2, 8, 12, 14, 1)
    assert clips["of"].shape == (2, 8, 12, 14, 2)
    np.testing.assert_array_equal(clips["of"][1, :, 0, 0, 0], -np.arange(4, 12))
    with pytest.raises(InputError, match="does not fit"):
        read_clip(movie.grey_path, 5, 8)


def test_batches_hold_every_movie_once_with_the_same_start_in_both_streams(root):
    data = DataGeneratorMerged(pairs(root), batch_size=2, nframes=8, threshold=2)
    assert len(data) == 3
    seen = []
    for k in range(3):
        x, y, weight = data[k]
        assert x["grey"].dtype == x["of"].dtype == y.dtype == np.float32
        np.testing.assert_array_equal(x["grey"][..., 0], -x["of"][..., 0])
        assert list(y) == [float(CLASSMAP[stem] > 2) for stem in data.names(k)]
        assert (weight == 1).all()
        seen += data.names(k)
    assert sorted(seen) == sorted(CLASSMAP)


def test_order_and_clips_depend_on_seed_and_epoch_only(root):
    movies = pairs(root)

    def epoch(number, seed=0, batch_size=2):
        data = DataGeneratorMerged(movies, batch_size=batch_size, nframes=8, seed=seed)
        for _ in range(number):
            data.on_epoch_end()
        starts = {}
        for k in range(len(data)):
            x, *_ = data[k]
            starts.update(zip(data.names(k), x["grey"][:, 0, 0, 0, 0], strict=True))
        return starts

    assert list(epoch(1)) == list(epoch(1))
    assert epoch(1) == epoch(1, batch_size=5)  # the clip of a movie does not depend on its batch
    assert any(epoch(0) != epoch(k) for k in (1, 2))
    assert any(list(epoch(0)) != list(epoch(k)) for k in (1, 2))
    assert epoch(0) != epoch(0, seed=1) or epoch(1) != epoch(1, seed=1)


def test_class_weights_and_filling_for_replicas(root):
    data = DataGeneratorMerged(
        pairs(root), batch_size=4, nframes=8, class_weight={0: 0.2, 1: 1.8}, replicas=2
    )
    _, y, weight = data[0]
    np.testing.assert_allclose(weight, np.where(y > 0, 1.8, 0.2), rtol=1e-6)
    x, y, weight = data[1]  # one movie left, two replicas
    assert len(x["grey"]) == len(y) == 2
    assert weight[1] == 0
    np.testing.assert_array_equal(x["grey"][0], x["grey"][1])
    assert len(data.names(1)) == 1


def test_augmentation_changes_pictures_not_labels(root):
    plain = DataGeneratorMerged(pairs(root), batch_size=5, nframes=8)
    changed = DataGeneratorMerged_aug(pairs(root), batch_size=5, nframes=8)
    same = DataGeneratorMerged_aug(pairs(root), batch_size=5, nframes=8, p=0)
    assert changed[0][0]["grey"].shape == plain[0][0]["grey"].shape
    np.testing.assert_array_equal(plain[0][1], changed[0][1])
    np.testing.assert_array_equal(plain[0][0]["grey"], same[0][0]["grey"])
    assert not np.array_equal(plain[0][0]["grey"], changed[0][0]["grey"])


def test_pretraining_batches_and_half_precision_files(tmp_path):
    movies = []
    for k in range(3):
        path = tmp_path / f"v{k}.npy"
        save_array(path, np.full((9 + k, 12, 14, 2), k, np.float16))
        movies.append((path, 50.0 + k))
    data = DataGeneratorEchonet(movies, batch_size=2, nframes=8, shuffle=False)
    x, y, weight = data[0]
    assert x.shape == (2, 8, 12, 14, 2)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(y, [50, 51])
    np.testing.assert_array_equal(weight, [1, 1])
    assert data.names(1) == ["v2"]
    with pytest.raises(InputError, match="no movies"):
        DataGeneratorEchonet([], batch_size=2, nframes=8)
