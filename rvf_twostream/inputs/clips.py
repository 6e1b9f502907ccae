"""Data sets of clips for training: order, starts, augmentation and batches for Keras.

Follows specification section 7.2. The order of epoch e depends on (seed, e), the clip and
augmentation of movie i in it on (seed, e, i): both are the same for any number of worker threads.
The base class is Keras' own, so scripts import this module after their arguments are parsed;
``movies.py`` reads movies without it.

Letters in shape comments: b batch, t frames of a clip, r rows, c columns, k channels.
"""

import math
from pathlib import Path

import keras
import numpy as np

from common.files import InputError
from inputs.augment import PROBABILITY, augment_clip
from inputs.movies import random_starts, read_clip
from inputs.utils import load_movie
from settings import NFRAMES


class _Clips(keras.utils.PyDataset):
    """One random clip per item and epoch, in batches; the items are permuted each epoch.

    Args:
        items: what the subclass cuts clips from.
        batch_size, nframes: items a batch; frames a clip.
        seed: order from (seed, epoch), clips from (seed, epoch, item).
        replicas: the last batch is filled to a multiple of it with samples of weight 0, since
            batch norm fails on a replica without samples.
        shuffle: False keeps the order of ``items``.
        workers: threads of Keras' own loops.
    """

    def __init__(
        self, items, *, batch_size, nframes=NFRAMES, seed=0, replicas=1, shuffle=True, workers=1
    ):
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

    def on_epoch_end(self) -> None:
        """Go on to the order, clips and augmentation of the next epoch."""
        self.epoch += 1

    def names(self, batch: int) -> list[str]:
        """Return the stems of the movies of a batch."""
        indices, real = self._indices(batch)
        return [self._name(self.items[i]) for i in indices[:real]]

    def _indices(self, batch):
        """Return the item numbers of a batch, filled up, and how many of them count."""
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        order = np.arange(len(self.items))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        real = len(chosen)
        filled = math.ceil(real / self.replicas) * self.replicas
        return np.resize(chosen, filled), real

    def _batch(self, batch):
        """Return the clips (b, t, r, c, k), the items and the weights (b,) of a batch."""
        indices, real = self._indices(batch)
        items = [self.items[i] for i in indices]
        rngs = [np.random.default_rng([self.seed, self.epoch, int(i)]) for i in indices]
        clips = [self._clip(item, rng) for item, rng in zip(items, rngs, strict=True)]
        weight = np.ones(len(items), np.float32)
        weight[real:] = 0
        return np.stack(clips), items, weight


class DataGeneratorMerged(_Clips):
    """Batches for training: ({"grey": (b,t,r,c,1), "of": (b,t,r,c,2)}, y (b,), weight (b,)).

    Args:
        movies: list of ``movies.Movie``.
        threshold: y is 1 when the class index is larger.
        class_weight: {0: w0, 1: w1} of the samples, or None for 1.
        scaling: {stream: Scaling} from stored values to the network's, or None.
        settings: as in ``_Clips``.

    Differs: the published batches have the same members in every epoch; only their order changes.
    Source: section 7.2.
    """

    def __init__(
        self, movies, *, batch_size=4, threshold=2, class_weight=None, scaling=None, **settings
    ):
        super().__init__(movies, batch_size=batch_size, **settings)
        self.scaling = scaling or {"grey": None, "of": None}
        self.threshold = threshold
        self.class_weight = class_weight or {0: 1.0, 1: 1.0}

    def __getitem__(self, batch):
        clips, movies, weight = self._batch(batch)  # (b, t, r, c, 3)
        y = np.array([movie.label_class > self.threshold for movie in movies], np.float32)
        weight *= [self.class_weight[int(label)] for label in y]
        return {"grey": clips[..., :1], "of": clips[..., 1:]}, y, weight

    def _name(self, movie):
        return movie.stem

    def _clip(self, movie, rng):
        """Return grey, flow x and flow y of the same frames, (t, r, c, 3)."""
        start = random_starts(movie.n_frames, self.nframes, 1, rng)[0]
        grey = read_clip(movie.grey_path, start, self.nframes, self.scaling["grey"])
        flow = read_clip(movie.of_path, start, self.nframes, self.scaling["of"])
        return np.concatenate([grey, flow], axis=-1)


class DataGeneratorMerged_aug(DataGeneratorMerged):
    """DataGeneratorMerged with rotation, translation and zoom of every clip (section 7.3)."""

    def __init__(self, movies, *, p=PROBABILITY, rotate_flow=False, **settings):
        super().__init__(movies, **settings)
        self.p, self.rotate_flow = p, rotate_flow

    def _clip(self, movie, rng):
        clip = super()._clip(movie, rng)
        return augment_clip(clip, rng, p=self.p, rotate_flow=self.rotate_flow)


class DataGeneratorEchonet(_Clips):
    """Batches for pre-training: (x (b,t,r,c,k), y (b,), weight (b,)).

    Args:
        movies: list of (path of the movie, target), the target an ejection fraction in percent or
            a class index.
        settings: as in ``_Clips``.
    """

    def __init__(self, movies, *, batch_size=8, **settings):
        super().__init__(movies, batch_size=batch_size, **settings)

    def __getitem__(self, batch):
        x, items, weight = self._batch(batch)
        return x, np.array([target for _, target in items], np.float32), weight

    def _name(self, item):
        return Path(item[0]).stem

    def _clip(self, item, rng):
        start = random_starts(len(load_movie(item[0])), self.nframes, 1, rng)[0]
        return read_clip(item[0], start, self.nframes)
