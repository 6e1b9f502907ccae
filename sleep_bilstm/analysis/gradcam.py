"""Where the network looks: Grad-CAM and Grad-CAM++ of all states in one pass, in constant memory.

Faithful: weights per frame, gradient of the softmax probability, normalised over the whole volume
of an epoch.
Small inputs: Grad-CAM was measured not to localise there; occlusion.py gives a map that can be
trusted.
Source: specification section 8.3; Selvaraju et al. 2017, Chattopadhay et al. 2018.
"""

import numpy as np
from skimage.transform import resize

from network.forward import states_of
from network.model_attention_bilstm import AttentionBiLSTM

TINY = 1e-7


def frame_weights(gradients: np.ndarray, activation: np.ndarray, method: str) -> np.ndarray:
    """Return one weight per frame and channel, (B, F, C), of arrays (B, F, h, w, C).

    gradcam: the mean gradient over h, w. gradcam++: sum of alpha relu(g) with
    alpha = g^2 / (2 g^2 + (sum A) g^3).
    """
    if method == "gradcam":
        return gradients.mean(axis=(2, 3))
    squares = gradients**2
    denominator = 2 * squares + activation.sum(axis=(2, 3), keepdims=True) * gradients**3
    alpha = np.where(gradients == 0, 0, squares / np.where(denominator == 0, 1e-10, denominator))
    return (alpha * np.maximum(gradients, 0)).sum(axis=(2, 3))


def heatmaps(gradients: np.ndarray, activation: np.ndarray, method: str = "gradcam") -> np.ndarray:
    """Return the maps (B, F, h, w), 0 to 1, normalised over the whole volume of each epoch."""
    weights = frame_weights(gradients, activation, method)
    maps = np.maximum(np.einsum("bfhwc,bfc->bfhw", activation, weights, optimize=True), 0)
    low = maps.min(axis=(1, 2, 3), keepdims=True)
    high = maps.max(axis=(1, 2, 3), keepdims=True)
    return (maps - low) / (high - low + TINY)


def upsample(low: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize maps (..., h, w) to (..., H, W): linear, half-pixel centres, mirrored border."""
    shape = (*low.shape[:-2], height, width)
    return resize(low, shape, order=1, mode="reflect", anti_aliasing=False, preserve_range=True)


class GradCam:
    """Grad-CAM of a network: one call per batch of epochs.

    Args:
        network: AttentionBiLSTM.
        method: gradcam or gradcam++ (on the logit, as the published method defines it).
        target: prob or logit.
        frame_chunk: frames encoded at once.
    """

    def __init__(
        self,
        network: AttentionBiLSTM,
        *,
        method: str = "gradcam",
        target: str = "prob",
        frame_chunk: int = 42,
    ):
        self.network = network
        self.method = method
        self.target = "logit" if method == "gradcam++" else target
        self.frame_chunk = frame_chunk

    def __call__(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return maps (B, h, w), mean over time, and probabilities (B, K) of (B, F, H, W)."""
        maps, probs = self.volumes(frames)
        return maps.mean(axis=1), probs

    def volumes(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return maps (B, F, h, w) of the predicted state and probabilities (B, K)."""
        activation = self.network.activations(frames, self.frame_chunk)
        probs = self.network.from_features(activation.mean(axis=(2, 3)))["probs"]
        gradients = self.network.gradients(activation, states_of(probs), self.target)
        return heatmaps(gradients, activation, self.method), probs
