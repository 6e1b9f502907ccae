"""When the network looks: export the attention weight of every time step, all epochs of a mouse.

Called by main.py --mode attention_weights. Source: specification section 8.4.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.attention_figures import attention_statistics, save_attention_figures
from analysis.evaluation import prediction_table
from analysis.tables import write_table
from common.files import InputError
from inputs.dataloader_sleep import Epochs
from inputs.hypnogram import places_of_mice, stretches
from inputs.mat_writer import save_mat
from network.forward import run_over
from network.model_attention_bilstm import AttentionBiLSTM
from settings import Settings


def export_attention(
    network: AttentionBiLSTM, epochs: Epochs, out: Path, settings: Settings
) -> dict[str, np.ndarray]:
    """Write `<mouse>_attention_weights.mat` (att_weights N x F), a CSV and the figures of every
    mouse.

    Epochs come in (run, epoch) order, correct or not; each row of weights sums to 1.

    Returns:
        mouse -> weights (N, F).
    """
    if network.architecture.temporal_attention == "none":
        raise InputError("the network has no temporal attention: there are no weights to show")
    results = {}
    classes = epochs.view.num_classes
    for mouse, places in places_of_mice(epochs.records).items():
        own = Epochs([epochs.records[i] for i in places], epochs.view)
        outputs = run_over(network, own, settings, ("probs", "weights"))
        weights = outputs["weights"][:, 0]  # (N, F)
        table = prediction_table(own, outputs["probs"])
        names = {"y_preds": "pred", "y_trues": "true"} | {k: k for k in ("run", "epoch", "time_s")}
        variables = {key: table[column].to_numpy()[None] for key, column in names.items()}
        save_mat(
            out / f"{mouse}_attention_weights.mat",
            {"att_weights": weights, "num_classes": classes, **variables},
        )
        columns = [f"w{frame}" for frame in range(weights.shape[1])]
        shown = pd.DataFrame(weights, columns=columns, index=table.index)
        write_table(
            table[["date", "tag", "run", "epoch", "time_s", "true", "pred"]].join(shown),
            out / f"{mouse}_attention_weights.csv",
        )
        states, true = table["pred"].to_numpy(), table["true"].to_numpy()
        statistics = attention_statistics(
            weights,
            states,
            true,
            num_classes=classes,
            parts=stretches(table["run"].to_numpy(), table["epoch"].to_numpy()),
            time_s=table["time_s"].to_numpy(),
        )
        save_attention_figures(statistics, states, out, mouse)
        results[mouse] = weights
    return results
