"""Where the evidence lies: drop of the probability of the predicted state when one patch is hidden.

A patch is replaced in all frames by what says nothing in its normalisation: 0, the mean of z-scored
data, or else the mean of the epoch inside the brain. Unlike Grad-CAM, this map finds
a planted place on small inputs. Source: specification section 13, item 10; Zeiler and Fergus 2014.
"""

import numpy as np

from analysis.utils import all_probabilities
from common.files import InputError
from network.forward import states_of
from network.model_attention_bilstm import AttentionBiLSTM

Z_SCORES = ("temporal", "spatial")


def patch_masks(height: int, width: int, patch: int) -> np.ndarray:
    """Return (n, H, W) bool, one square patch each; patches tile the frame."""
    if not 1 <= patch <= min(height, width):
        raise InputError(f"occlusion_patch is {patch}: expected 1 to {min(height, width)} pixels")
    masks = []
    for row in range(0, height, patch):
        for column in range(0, width, patch):
            mask = np.zeros((height, width), bool)
            mask[row : row + patch, column : column + patch] = True
            masks.append(mask)
    return np.stack(masks)


def parcel_pair_masks(atlas: np.ndarray) -> np.ndarray:
    """Return (20, H, W) bool: each atlas parcel with its mirror image (values n and n + 20)."""
    return np.stack([(atlas == n) | (atlas == n + 20) for n in range(1, 21)])


class Occlusion:
    """Occlusion map of a network: one call per batch of epochs.

    Args:
        network: AttentionBiLSTM.
        masks: (n, H, W) bool, the patches.
        frame_chunk: frames encoded at once.
        normalization: of the frames, see create_tfrecords.py.
    """

    def __init__(
        self,
        network: AttentionBiLSTM,
        masks: np.ndarray,
        *,
        frame_chunk: int = 42,
        normalization: str = "temporal",
    ):
        self.network = network
        self.masks = masks
        self.frame_chunk = frame_chunk
        self.normalization = normalization

    def _hide(self, frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return frames (B, F, H, W) with the pixels of ``mask`` (H, W) hidden."""
        hidden = frames.copy()
        if self.normalization in Z_SCORES:
            hidden[..., mask] = 0
            return hidden
        for movie, shown in zip(frames, hidden, strict=True):
            inside = (movie != 0).any(axis=0)
            shown[:, mask & inside] = movie[:, inside].mean()
        return hidden

    def drops(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return drop of the probability (B, n) per patch and probabilities (B, K) of frames (B, F,
        H, W).
        """
        probs = self.network.infer(frames, self.frame_chunk)["probs"]
        before = all_probabilities(probs)
        chosen, row = states_of(probs), np.arange(len(frames))
        drops = np.zeros((len(frames), len(self.masks)), np.float32)
        for number, mask in enumerate(self.masks):
            if not frames[..., mask].any():
                continue  # the patch lies outside the brain: hiding it changes nothing
            hidden = self._hide(frames, mask)
            after = all_probabilities(self.network.infer(hidden, self.frame_chunk)["probs"])
            drops[:, number] = before[row, chosen] - after[row, chosen]
        return drops, probs

    def __call__(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return maps (B, H, W) of the drop, 0 outside all patches, and probabilities (B, K)."""
        drops, probs = self.drops(frames)
        cover = np.maximum(self.masks.sum(axis=0), 1)
        return np.einsum("bn,nhw->bhw", drops, self.masks.astype(np.float32)) / cover, probs
