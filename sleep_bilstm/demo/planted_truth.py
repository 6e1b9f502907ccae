"""Compare what the network shows with what the generator planted: slow waves and the quadrant.

Source: specification section 14, checks A11 and A12.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.attention_figures import effective_steps
from analysis.gradcam import GradCam, upsample
from analysis.occlusion import Occlusion
from demo.toy_quadrant import quadrant_masks
from inputs.dataloader_sleep import Epochs
from inputs.recordings import find_recordings, parse_name
from inputs.states import NREM
from network.forward import states_of
from network.model_attention_bilstm import AttentionBiLSTM

SHUFFLES = 1000


def planted_envelopes(recordings: Path, epochs: Epochs) -> np.ndarray:
    """Return the envelope (N, F) of the slow waves in every epoch, 0 outside NREM frames."""
    truth = {}
    for path in find_recordings(recordings):
        name = parse_name(path)
        with np.load(path.with_suffix(".truth.npz")) as held:
            # Slow waves run on below the other states in truth.npz; the film shows them in NREM.
            truth[name.date, name.mouse, name.run] = held["slow_wave_envelope"] * (
                held["state"] == NREM
            )
    n = epochs.view.num_frames
    return np.stack([truth[r.date, r.mouse, r.run][r.epoch, :n] for r in epochs.records])


def row_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Pearson's r of every pair of rows (N, F); 0 for a constant row."""
    a = first - first.mean(axis=1, keepdims=True)
    b = second - second.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)


def attention_against_waves(
    weights: np.ndarray, envelopes: np.ndarray, table: pd.DataFrame, *, seed: int
) -> dict:
    """Correlate attention (N, F) with the planted envelope (N, F) over correctly found NREM
    epochs.

    Returns:
        mean correlation, the 95th percentile of 1,000 means with shuffled epochs, over how many
        steps the weights are spread (median), and n; None for the numbers when fewer than two
        epochs qualify.
    """
    use = ((table["true"] == NREM) & (table["pred"] == NREM)).to_numpy()
    attention, planted = weights[use], envelopes[use]
    if len(attention) < 2:
        return {"mean": None, "shuffled_95": None, "steps": None, "n": len(attention)}
    rng = np.random.default_rng(seed)
    shuffled = [
        row_correlations(attention, planted[rng.permutation(len(planted))]).mean()
        for _ in range(SHUFFLES)
    ]
    return {
        "mean": float(row_correlations(attention, planted).mean()),
        "shuffled_95": float(np.percentile(shuffled, 95)),
        "steps": float(np.median(effective_steps(attention))),
        "n": len(attention),
    }


def quadrant_hits(
    network: AttentionBiLSTM, epochs: Epochs, quadrant: int, *, frame_chunk: int
) -> pd.DataFrame:
    """Count the correctly classified epochs whose map is strongest in the planted quadrant.

    Returns:
        one row per method: method, epochs, n (correct epochs), hits, rate (chance 0.25).
    """
    movies = np.stack([epochs.read(i) for i in range(len(epochs))])
    masks = quadrant_masks(*epochs.shape[1:])
    drops, probs = Occlusion(network, masks, frame_chunk=frame_chunk).drops(movies)
    correct = states_of(probs) == epochs.labels
    places = {"occlusion": drops.argmax(axis=1)}
    for label, method, target in (
        ("Grad-CAM (probability)", "gradcam", "prob"),
        ("Grad-CAM (logit)", "gradcam", "logit"),
        ("Grad-CAM++", "gradcam++", "logit"),
    ):
        maps, _ = GradCam(network, method=method, target=target, frame_chunk=frame_chunk)(movies)
        full = upsample(maps, *epochs.shape[1:])
        places[label] = np.stack([full[:, mask].mean(axis=1) for mask in masks], 1).argmax(axis=1)
    rows = []
    for label, place in places.items():
        hits = int((place[correct] == quadrant).sum())
        n = int(correct.sum())
        rate = hits / n if n else np.nan
        rows.append({"method": label, "epochs": len(place), "n": n, "hits": hits, "rate": rate})
    return pd.DataFrame(rows)
