"""Feed epochs to the network as tf.data, in a given order."""

import numpy as np
import tensorflow as tf

from common.files import InputError
from inputs.dataloader_sleep import Epochs


def make_dataset(
    epochs: Epochs,
    order: np.ndarray,
    batch_size: int,
    *,
    workers: int = 1,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Return a tf.data.Dataset of (frames (B, F, H, W, 1), labels (B,)) in the given order.

    Several epochs are read at once; the order stays as given.
    """
    faults = []

    def read(item):
        try:
            return epochs.read(int(item))[..., None], np.int32(epochs.label_of(int(item)))
        except InputError as error:
            faults.append(error)
            raise

    @tf.autograph.experimental.do_not_convert
    def load(item):
        frames, label = tf.numpy_function(read, [item], (tf.float32, tf.int32), stateful=False)
        frames.set_shape((*epochs.shape, 1))
        label.set_shape(())
        return frames, label

    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(order, np.int64))
    dataset = dataset.map(load, num_parallel_calls=max(1, workers), deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder).prefetch(1)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.with_options(options)
    dataset.faults = faults  # keeps the reader's own message: TensorFlow wraps it in a long one
    return dataset
