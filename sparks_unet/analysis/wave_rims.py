"""Puffs that are the rim of a wave become part of it.

Front and tail of a wave are as dim and as slow as a puff: a network calls parts of them so. A puff
most of whose surroundings are wave is no event of its own.

Letters: T frames, H rows, W columns.
"""

import numpy as np
from scipy import ndimage

from inputs.data_processing import CUBE, padded_box
from settings.config import CLASSES

REACH = 2  # voxels around a puff that are its surroundings


def join_rims(
    instances: np.ndarray, class_of_id: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (instances, class of every id) in which the rims of waves belong to their wave.

    Args:
        instances: (T, H, W) int32 event ids 1..n. Not modified.
        class_of_id: (n + 1,) class number of every id.
        share: a puff joins the wave that it touches most when at least this share of the voxels
            within REACH of it are wave; 0 joins none.
    """
    if not share or not (class_of_id == CLASSES["waves"]).any():
        return instances, class_of_id
    joined = np.arange(len(class_of_id))
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None or class_of_id[number] != CLASSES["puffs"]:
            continue
        wide = padded_box(box, instances.shape, (REACH, REACH, REACH))
        puff = instances[wide] == number
        around = instances[wide][ndimage.binary_dilation(puff, CUBE, iterations=REACH) & ~puff]
        touched = around[class_of_id[around] == CLASSES["waves"]]
        if len(around) and len(touched) >= share * len(around):
            joined[number] = np.bincount(touched).argmax()
    kept = np.flatnonzero(joined == np.arange(len(joined)))  # 0 and the events that stay
    new = np.searchsorted(kept, joined).astype(np.int32)
    return new[instances], class_of_id[kept]
