"""Run the network over epochs: probabilities, states, and a reader's fault as it is."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from inputs.dataloader_sleep import Epochs
from inputs.feed import make_dataset
from network.model_attention_bilstm import AttentionBiLSTM


def states_of(probs: np.ndarray) -> np.ndarray:
    """Return the predicted state (N,) of probabilities (N, K); (N, 1) with two classes."""
    return (probs[:, 0] > 0.5).astype(int) if probs.shape[1] == 1 else probs.argmax(axis=1)


def run_over(
    network: AttentionBiLSTM, epochs: Epochs, how: Any, keys: tuple[str, ...] = ("probs",)
) -> dict[str, np.ndarray]:
    """Run the network over all epochs, in order, in batches of any size; nothing is left out.

    Args:
        network: the network.
        epochs: what it reads.
        how: settings of main.py or of a training: batch_size, frame_chunk, workers.
        keys: outputs of the network's head.

    Returns:
        dict of arrays, one row per epoch; both inputs of an epoch are averaged (hemisphere
        both-mirrored).
    """
    dataset = make_dataset(epochs, np.arange(len(epochs)), how.batch_size, workers=how.workers)
    parts = {key: [] for key in keys}
    bar = tqdm(total=len(epochs), desc="epochs", disable=None, leave=False)
    for frames, _ in fault_lines(dataset):
        outputs = network.infer(frames.numpy()[..., 0], how.frame_chunk)
        for key in keys:
            parts[key].append(outputs[key])
        bar.update(len(frames))
    bar.close()
    n = epochs.view.inputs_per_epoch
    return {
        k: np.concatenate(v).reshape(-1, n, *v[0].shape[1:]).mean(axis=1) for k, v in parts.items()
    }


def fault_lines(dataset: tf.data.Dataset) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Iterate over ``dataset``; let a reader's InputError out as it is, not as TensorFlow's."""
    try:
        yield from dataset
    except tf.errors.OpError:
        if dataset.faults:
            raise dataset.faults[0] from None
        raise
