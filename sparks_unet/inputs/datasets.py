"""Movies cut into chunks for training, and one movie cut into chunks for inference.

Letters: T frames, H rows, W columns, D frames of a chunk, s stride, C channels.

Source: specification sections 5.1, 5.5, 5.8, 7.3.
"""

import numpy as np
import torch
from torch.utils.data import Dataset

from inputs.augmentation import add_noise, draw_flips, flip, generators
from inputs.data_processing import annotated_spark_peaks
from inputs.dataset_tools import class_weights
from inputs.preprocessing import (
    count_chunks,
    keep_sparks,
    pad_frames,
    padding,
    preprocess_chunk,
    preprocess_movie,
    reduce_labels,
    sin_channels,
)
from settings.config import IGNORE_INDEX

TIME_REDUCTION = 4


def _network_input(chunk, params):
    """Return the chunk after the chunk-level steps and with sinusoids when asked for."""
    chunk = preprocess_chunk(chunk, params)
    return sin_channels(chunk, params.n_sin_channels) if params.sin_channels else chunk


class MovieDataset:
    """Chunks of one movie for inference.

    Args:
        movie: (T, H, W) counts.
        params: Params.
        stride: s; default the stride of [inference].
        name: named in warnings.

    Attributes:
        shape: (T', H, W) of the padded movie.
        pads: (before, after) frames of padding.
        duration, stride: D and s in frames.
    """

    def __init__(self, movie, params, *, stride=None, name="movie"):
        self.params = params
        self.duration, default = params.chunk
        self.stride = stride or default
        data, _ = preprocess_movie(movie, params, name=name)
        self.pads = padding(len(data), self.duration, self.stride)
        self.data = pad_frames(data, *self.pads, 0.0)
        self.shape = self.data.shape

    def __len__(self):
        return count_chunks(len(self.data), self.duration, self.stride)

    def __getitem__(self, index):
        """Return chunk ``index`` (D, H, W) or (C, D, H, W) float32."""
        start = index * self.stride
        return _network_input(self.data[start : start + self.duration], self.params)

    def frames(self, first: int, last: int) -> np.ndarray:
        """Return the frames ``first`` to ``last`` of the padded movie, (n, H, W) float32."""
        return self.data[first:last]


class SparkDataset(Dataset):
    """Labelled chunks of several movies, numbered consecutively.

    Args:
        samples: list of Sample with class labels (event ids optional).
        params: Params.
        augment: flips and noise, drawn from (seed, pass, index).

    Attributes:
        spark_peaks: per movie, (n, 3) int64 t, y, x of annotated sparks; None without event ids.
        table: (n, 2) int64, movie and first frame of every chunk in its padded movie.
    """

    def __init__(self, samples, params, *, augment=False):
        self.params, self.augment = params, augment
        self.duration, self.stride = params.data_duration, params.data_stride
        self.ids = [sample.id for sample in samples]
        self.durations = [len(sample.movie.data) for sample in samples]
        self.movies, self.labels, self.scales, self.spark_peaks = [], [], [], []
        sigma = params.postprocessing.sigma_peaks_dataset
        table = []
        for number, sample in enumerate(samples):
            peaks = None
            if sample.events is not None:
                peaks = annotated_spark_peaks(
                    sample.movie.data, sample.classes, sample.events, sigma=sigma
                )
            self.spark_peaks.append(peaks)
            movie, scale = preprocess_movie(sample.movie.data, params, name=sample.id)
            pads = padding(len(movie), self.duration, self.stride)
            self.movies.append(pad_frames(movie, *pads, 0.0))
            labels = pad_frames(sample.classes, *pads, IGNORE_INDEX)
            if params.temporal_reduction:
                labels = reduce_labels(labels, TIME_REDUCTION)
            if params.only_sparks:
                labels = keep_sparks(labels)
            self.labels.append(labels.astype(np.int8))
            self.scales.append(scale)
            count = count_chunks(len(self.movies[-1]), self.duration, self.stride)
            table += [(number, chunk * self.stride) for chunk in range(count)]
        self.table = np.array(table)

    def __len__(self):
        return len(self.table)

    def __getitem__(self, key):
        """Return one chunk.

        Args:
            key: index, or (pass, index) so that augmentation differs between passes.

        Returns:
            dict: data float32 (D, H, W), or (C, D, H, W) with sinusoids; labels int8 (D, H, W)
            (D/4 with temporal reduction); movie_id, original_duration, sample_id (int).
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"chunk {index} of {len(self)}")
        index %= len(self)
        number, start = self.table[index]
        data = self.movies[number][start : start + self.duration]
        factor = TIME_REDUCTION if self.params.temporal_reduction else 1
        labels = self.labels[number][start // factor : (start + self.duration) // factor]
        data = _network_input(data, self.params)
        if self.augment:
            data, labels = self._augmented(data, labels, number, epoch, index)
        return {
            "data": torch.from_numpy(np.ascontiguousarray(data)),
            "labels": torch.from_numpy(np.ascontiguousarray(labels)),
            "movie_id": int(number),
            "original_duration": self.durations[number],
            "sample_id": index,
        }

    def _augmented(self, data, labels, number, epoch, index):
        params = self.params
        generator, rng = generators(params.seed, epoch, index)
        flips = draw_flips(generator)
        data, labels = flip(data, *flips), flip(labels, *flips)
        if params.noise_data_augmentation:
            movie = data[0] if params.sin_channels else data
            noisy = add_noise(
                movie,
                rng,
                sigma=params.noise_sigma,
                gain=params.noise_gain,
                scale=self.scales[number],
                legacy=params.noise_legacy,
            )
            data = np.concatenate([noisy[None], data[1:]]) if params.sin_channels else noisy
        return data, labels

    def class_weights(self) -> np.ndarray | None:
        """Return the class weights (4,) of the configuration, or None for equal weights."""
        if self.params.class_weights == "none":
            return None
        factor = TIME_REDUCTION if self.params.temporal_reduction else 1
        weights = class_weights(self.labels, self.duration // factor, self.stride // factor)
        return np.sqrt(weights) if self.params.class_weights == "sqrt" else weights


def batch_keys(
    count: int, batch_size: int, iteration: int, *, seed: int, sampling: str
) -> list[tuple[int, int]]:
    """Return the (pass, index) keys of the batch of ``iteration``.

    Args:
        count: number of chunks.
        batch_size: chunks per batch; a batch is smaller only when the data set is.
        iteration: 0, 1, ...
        seed: first part of every seed.
        sampling: ``epoch``: an endless shuffled pass, every chunk once per pass; ``independent``:
            each batch is a fresh draw without replacement, the published law.
    """
    size = min(batch_size, count)
    if sampling == "independent":
        order = np.random.default_rng([seed, iteration]).permutation(count)
        return [(iteration, int(index)) for index in order[:size]]
    keys = []
    for position in range(iteration * size, (iteration + 1) * size):
        epoch, place = divmod(position, count)
        keys.append((epoch, place))
    orders = {e: np.random.default_rng([seed, e]).permutation(count) for e in {k[0] for k in keys}}
    return [(epoch, int(orders[epoch][place])) for epoch, place in keys]
