"""Items whose place is still being learned: what the file says of it, and the unmoved movie.

Letters: T frames.
"""

import logging
import math

import torch
from torch.utils.data import Dataset

from common.files import raise_faults
from inputs.ca_dataloader import CalciumDataset

log = logging.getLogger(__name__)


class Unmoved(Dataset):
    """The entries of a CalciumDataset with their movie as it was shown, and the place to see it.

    Instead of the sampled stimulus they hold ``movie`` (T, rows, columns), contrast, and
    ``place_deg`` (2,): azimuth and elevation of the file, 0 where it does not say.
    """

    def __init__(self, dataset: CalciumDataset):
        """Show the items of ``dataset``."""
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, row):
        """Return the item ``row``, or a pair, as CalciumDataset does."""
        item, label = self.dataset.shown_and_told(row)
        first, contrast = self.dataset.shown(item, self.dataset.onset(label))
        movie = torch.zeros(self.dataset.n_frames, *contrast.shape[1:])
        movie[first : first + len(contrast)] = contrast
        place = [0.0 if math.isnan(at) else at for at in self.dataset.recorded_place(item)]
        record = self.dataset.record(item, label)
        return {"movie": movie, "place_deg": torch.tensor(place), **record}


def recorded_places(dataset: CalciumDataset) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Return {(cell type, uid): [(azimuth, elevation) of the file, degrees]}, one per stimulus."""
    places = {}
    for item in dataset.items:
        if not item.trial:
            own = places.setdefault((item.cell_type, item.uid), [])
            own.append(dataset.recorded_place(item))
    return places


def check_places(dataset: CalciumDataset) -> None:
    """Say which neurons have no place in their file; refuse those that have one in some stimuli.

    Raises:
        InputError: a neuron whose place is known in some of its stimuli only.
    """
    unknown, faults = {}, []
    for (kind, uid), own in recorded_places(dataset).items():
        for name, values in zip(("azi_shift", "ele_shift"), zip(*own, strict=True), strict=True):
            missing = [math.isnan(value) for value in values]
            if all(missing):
                unknown.setdefault(kind, {}).setdefault(uid, []).append(name)
            elif any(missing):
                faults.append(
                    f"{kind}, neuron {uid}: {name} is missing in {sum(missing)} of {len(own)} "
                    "stimuli; expected it in all of them or in none"
                )
    raise_faults(faults)
    for kind, neurons in unknown.items():
        log.warning(
            "%s: no azi_shift or ele_shift of %d neurons (%s%s) in their files: they are searched "
            "from the middle of the field, 0 degrees", kind, len(neurons),
            ", ".join(map(str, list(neurons)[:3])), ", ..." if len(neurons) > 3 else "",
        )  # fmt: skip
