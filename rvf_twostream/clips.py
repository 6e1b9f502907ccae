"""Data sets of clips for training: pairs of movies, the start of every clip, batches for Keras.

Follows specification section 7.2. Movies are ``.npy`` files opened as memory maps, so that only the
frames of a clip are read. The order of epoch e depends on (seed, e), the clip and augmentation of
movie i in it on (seed, e, i): both are the same for any number of worker threads.

Letters in shape comments: b batch, t frames of a clip, r rows, c columns, k channels.
"""

import math
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from augment import PROBABILITY, augment_clip
from files import InputError, raise_faults
from utils import NCOLS, NFRAMES, NROWS, check_finite, list_stems, load_movie


class Movie(NamedTuple):
    """A pair of movies of the same recording, grey (n, r, c, 1) and flow (n, r, c, 2)."""

    stem: str
    grey_path: Path
    of_path: Path
    label_class: int  # 0 normal, 1 mild, 2 moderate, 3 severe
    n_frames: int


def list_pairs(
    root, splitnum, set_name, classmap, *, nframes=NFRAMES, nrows=NROWS, ncols=NCOLS, short=None
):
    """Return the movies of one set of a split, sorted by name, after checking every one of them.

    Args:
        root: folder of the data set.
        splitnum, set_name: the split and ``train``, ``val`` or ``test``.
        classmap: {stem: class index}; movies without an entry are left out.
        nframes, nrows, ncols: smallest number of frames; size of the pictures.
        short: list that collects the stems of movies with fewer frames; without it they are faults.

    Raises:
        InputError: all faults together: no folder, no flow, other size, NaN, too few frames.
    """
    grey_dir = Path(root) / "greyscale" / f"split{splitnum}_{set_name}"
    of_dir = Path(root) / "OF" / f"split{splitnum}_{set_name}"
    for folder in (grey_dir, of_dir):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder; run split_data.py --root {root} --splitnum {splitnum}"
            )
    movies, faults = [], []
    for stem in list_stems(grey_dir):
        if stem not in classmap:
            continue
        paths = grey_dir / f"{stem}.npy", of_dir / f"{stem}.npy"
        try:
            n_frames = _checked_length(*paths, nrows=nrows, ncols=ncols)
        except InputError as error:
            faults.append(str(error))
            continue
        if n_frames >= nframes:
            movies.append(Movie(stem, *paths, classmap[stem], n_frames))
        elif short is None:
            faults.append(f"{paths[0]}: {n_frames} frames, {nframes} needed")
        else:
            short.append(stem)
    raise_faults(faults)
    if not movies:
        raise InputError(f"{grey_dir}: no movie with an entry in classmap.json; run split_data.py")
    return movies


def _checked_length(grey_path, of_path, *, nrows, ncols):
    """Return the number of frames of a pair whose sizes agree and whose values are finite."""
    if not of_path.exists():
        raise InputError(
            f"{of_path}: flow missing; run optical_flow_calculator.py and split_data.py"
        )
    grey = load_movie(grey_path, channels=1, nrows=nrows, ncols=ncols)
    flow = load_movie(of_path, channels=2, nrows=nrows, ncols=ncols)
    if len(grey) != len(flow):
        raise InputError(f"{of_path}: {len(flow)} fields for {len(grey)} frames of the grey movie")
    for path, movie in ((grey_path, grey), (of_path, flow)):
        check_finite(path, movie)
    return len(grey)


def fixed_starts(n_frames, nframes, n):
    """Return ``n`` evenly spaced first frames of clips of ``nframes`` frames."""
    return [int(s) for s in np.linspace(0, n_frames - nframes, n).round()]


def random_starts(n_frames, nframes, n, rng):
    """Return ``n`` first frames, uniform in [0, n_frames - nframes]."""
    return [int(s) for s in rng.integers(0, n_frames - nframes, size=n, endpoint=True)]


def read_clip(path, start, nframes):
    """Return frames ``start`` to ``start + nframes - 1`` of a movie, (t, r, c, k) float32."""
    movie = load_movie(path)
    if not 0 <= start <= len(movie) - nframes:
        raise InputError(
            f"{path}: {len(movie)} frames, a clip of {nframes} from frame {start} does not fit"
        )
    clip = np.asarray(movie[start : start + nframes], dtype=np.float32)
    check_finite(path, clip)
    return clip


def movie_clips(movie, starts, nframes):
    """Return the clips that begin at ``starts``: {"grey": (b,t,r,c,1), "of": (b,t,r,c,2)}."""
    return {
        "grey": np.stack([read_clip(movie.grey_path, start, nframes) for start in starts]),
        "of": np.stack([read_clip(movie.of_path, start, nframes) for start in starts]),
    }


class _Clips(keras.utils.PyDataset):
    """Order, epochs and filling shared by the data sets: ``items`` are permuted each epoch."""

    def __init__(self, items, *, batch_size, nframes, seed, replicas, shuffle, workers):
        # Threads, not processes: forking with TensorFlow loaded is unsafe; NumPy frees the lock.
        super().__init__(workers=workers, use_multiprocessing=False)
        self.items = list(items)
        if not self.items:
            raise InputError("no movies to train on")
        self.batch_size, self.nframes, self.seed = batch_size, nframes, seed
        self.replicas, self.shuffle = replicas, shuffle
        self.epoch = 0

    def __len__(self):
        return math.ceil(len(self.items) / self.batch_size)

    def on_epoch_end(self):
        """Go on to the order, clips and augmentation of the next epoch."""
        self.epoch += 1

    def _indices(self, batch):
        """Return the item numbers of a batch and how many of them count.

        The last batch is filled with repeated items up to a multiple of the number of replicas:
        batch norm fails on a replica without samples.
        """
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        order = np.arange(len(self.items))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        real = len(chosen)
        filled = math.ceil(real / self.replicas) * self.replicas
        return np.resize(chosen, filled), real

    def _rng(self, i):
        """Return the generator of item ``i`` in this epoch."""
        return np.random.default_rng([self.seed, self.epoch, int(i)])


class DataGeneratorMerged(_Clips):
    """Batches of one random clip per movie: ({"grey": (b,t,r,c,1), "of": (b,t,r,c,2)}, y, weight).

    Args:
        movies: list of Movie.
        batch_size, nframes: movies a batch; frames a clip.
        threshold: y is 1 when the class index is larger.
        seed: order from (seed, epoch), clips from (seed, epoch, movie).
        class_weight: {0: w0, 1: w1} of the samples, or None for 1.
        replicas: the last batch is filled to a multiple of it with samples of weight 0.

    Differs: the published batches have the same members in every epoch; only their order changes.
    Source: section 7.2.
    """

    def __init__(
        self,
        movies,
        *,
        batch_size=4,
        nframes=NFRAMES,
        threshold=2,
        seed=0,
        class_weight=None,
        replicas=1,
        shuffle=True,
        workers=1,
    ):
        super().__init__(
            movies,
            batch_size=batch_size,
            nframes=nframes,
            seed=seed,
            replicas=replicas,
            shuffle=shuffle,
            workers=workers,
        )
        self.threshold, self.class_weight = threshold, class_weight

    def names(self, batch):
        """Return the stems of the movies of a batch."""
        indices, real = self._indices(batch)
        return [self.items[i].stem for i in indices[:real]]

    def __getitem__(self, batch):
        indices, real = self._indices(batch)
        clips = np.stack([self._clip(i) for i in indices])  # (b, t, r, c, 3)
        y = np.array([self.items[i].label_class > self.threshold for i in indices], np.float32)
        weights = self.class_weight or {0: 1.0, 1: 1.0}
        weight = np.array([weights[int(label)] for label in y], np.float32)
        weight[real:] = 0
        return {"grey": clips[..., :1], "of": clips[..., 1:]}, y, weight

    def _clip(self, i):
        """Return grey, flow x and flow y of the clip of movie ``i``, (t, r, c, 3)."""
        movie, rng = self.items[i], self._rng(i)
        start = random_starts(movie.n_frames, self.nframes, 1, rng)[0]
        grey = read_clip(movie.grey_path, start, self.nframes)
        flow = read_clip(movie.of_path, start, self.nframes)
        return self._changed(np.concatenate([grey, flow], axis=-1), rng)

    def _changed(self, clip, rng):
        return clip


class DataGeneratorMerged_aug(DataGeneratorMerged):
    """DataGeneratorMerged with rotation, translation and zoom of every clip (section 7.3)."""

    def __init__(self, movies, *, p=PROBABILITY, rotate_flow=False, **settings):
        super().__init__(movies, **settings)
        self.p, self.rotate_flow = p, rotate_flow

    def _changed(self, clip, rng):
        return augment_clip(clip, rng, p=self.p, rotate_flow=self.rotate_flow)


class DataGeneratorEchonet(_Clips):
    """Batches for pre-training: (x (b,t,r,c,k), y (b,), weight (b,)), one random clip per movie.

    Args:
        movies: list of (path of the movie, target), the target an ejection fraction in percent or
            a class index.
        batch_size, nframes, seed, replicas, shuffle: as in DataGeneratorMerged.
    """

    def __init__(
        self,
        movies,
        *,
        batch_size=8,
        nframes=NFRAMES,
        seed=0,
        replicas=1,
        shuffle=True,
        workers=1,
    ):
        super().__init__(
            movies,
            batch_size=batch_size,
            nframes=nframes,
            seed=seed,
            replicas=replicas,
            shuffle=shuffle,
            workers=workers,
        )

    def names(self, batch):
        """Return the stems of the movies of a batch."""
        indices, real = self._indices(batch)
        return [Path(self.items[i][0]).stem for i in indices[:real]]

    def __getitem__(self, batch):
        indices, real = self._indices(batch)
        x = np.stack([self._clip(i) for i in indices])  # (b, t, r, c, k)
        y = np.array([self.items[i][1] for i in indices], np.float32)
        weight = np.ones(len(indices), np.float32)
        weight[real:] = 0
        return x, y, weight

    def _clip(self, i):
        path = self.items[i][0]
        start = random_starts(len(load_movie(path)), self.nframes, 1, self._rng(i))[0]
        return read_clip(path, start, self.nframes)
