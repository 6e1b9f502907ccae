"""How far beside its own place a network sees a neuron, from neurons whose place is known.

A trained network answers at a place as a neuron that looks a fraction of a degree aside: its maps
are learned from a few places. Its training neurons tell how far: they are located as a new neuron
is, and what they are off by, between them by kriging, is taken from the places of new ones.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 2.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inputs.ca_dataloader import CalciumDataset
from network.models import STCNN
from runs.new_neurons import refine

SHARED_DEG, LOCAL_DEG = 0.3, 0.3  # sd of what all places of a type share, and of what they don't
LENGTH_DEG = 3.0  # over which the second changes
LEAST_SD_DEG = 0.1  # of a located neuron


@dataclass(frozen=True)
class Calibration:
    """Known places of each type's neurons, and by how much they were found beside them."""

    known: Mapping[str, np.ndarray]  # {type: (neurons, 2)} azimuth and elevation, degrees
    off: Mapping[str, np.ndarray]  # {type: (neurons, 2)} found minus known, degrees
    sd: Mapping[str, np.ndarray]  # {type: (neurons,)} of the found ones, degrees

    def off_at(self, kind: str, place: Sequence[float]) -> np.ndarray:
        """Return (azimuth, elevation), degrees, to take from a place of ``kind`` found there."""
        if kind not in self.known:
            return np.zeros(2)
        known, own = self.known[kind], np.asarray(place, dtype=np.float64)[None]
        noise = np.diag(np.maximum(self.sd[kind], LEAST_SD_DEG) ** 2)
        weights = np.linalg.solve(_alike(known, known) + noise, self.off[kind])
        return (_alike(own, known) @ weights)[0]


def calibrate(
    model: STCNN, dataset: CalciumDataset, neurons: Mapping[tuple[str, int], Sequence[int]]
) -> Calibration:
    """Locate neurons whose place the network was told, from there, and keep what they are off by.

    Args:
        model: network that was trained on them.
        dataset: their set; the network saw their stimuli from whole pixels.
        neurons: {(cell type, uid): items}.
    """
    known, off, sd = {}, {}, {}
    for (kind, _), rows in neurons.items():
        row, column = dataset.pixel_shift(dataset.items[rows[0]])
        place = np.array([column, -row]) * dataset.layout.px_res_deg
        found = refine(model, dataset, rows, place)
        known.setdefault(kind, []).append(place)
        off.setdefault(kind, []).append(np.array(found.place) - place)
        sd.setdefault(kind, []).append(found.position_sd_deg)
    return Calibration(*({kind: np.array(own) for kind, own in part.items()}
                         for part in (known, off, sd)))  # fmt: skip


def _alike(some, others):
    """Return the covariance (n, m) of what neurons at two lists of places are off by."""
    distance = ((some[:, None] - others[None]) ** 2).sum(2)
    return SHARED_DEG**2 + LOCAL_DEG**2 * np.exp(-distance / (2 * LENGTH_DEG**2))
