"""Guided back-propagation by innvestigate, run by visualize_GBP.py in an environment of its own.

    python innvestigate_worker.py given.npz found.npz

Reads weights as ``<layer>/<variable>``, ``clip/grey`` (b,t,r,c,1), ``clip/of`` (b,t,r,c,2) and the
shape of the model; writes the guided gradients ``grey`` and ``of`` of the same shapes. innvestigate
2.1.2 needs TensorFlow below 2.15 with eager execution off (requirements-innvestigate.txt).
Source: specification 11.2.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

import keras
import numpy as np
from resnet_builder_keras import trunk  # beside this file


def linear_two_stream(input_size: tuple[int, int, int], depth: int, width: int) -> keras.Model:
    """Return the two-stream model with a linear head: innvestigate refuses a sigmoid."""
    grey = keras.Input((*input_size, 1), name="grey")
    flow = keras.Input((*input_size, 2), name="of")
    features = [trunk(grey, "grey", depth, width=width), trunk(flow, "of", depth, width=width)]
    joined = keras.layers.Concatenate(name="concat")(features)
    return keras.Model([grey, flow], keras.layers.Dense(1, name="preds")(joined))


def main(argv: list[str] | None = None) -> None:
    """Write the guided gradients of the clips in one file to another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("given", help="weights and clips, .npz")
    parser.add_argument("found", help="guided gradients to write, .npz")
    files = parser.parse_args(argv)
    import tensorflow as tf

    # Before anything is built: innvestigate asks TensorFlow's graph for gradients.
    tf.compat.v1.disable_eager_execution()
    import innvestigate

    with np.load(files.given, allow_pickle=False) as arrays:
        arrays = dict(arrays)
    model = linear_two_stream(**json.loads(str(arrays["shape"])))
    for layer in model.layers:
        layer.set_weights([arrays[v.name.split(":")[0]] for v in layer.weights])
    analyzer = innvestigate.create_analyzer("guided_backprop", model)
    maps = {"grey": [], "of": []}
    for grey, flow in zip(arrays["clip/grey"], arrays["clip/of"], strict=True):
        clip = [grey[None], flow[None]]
        # The analyzer multiplies by the output, which is positive here.
        scale = float(model.predict(clip, verbose=0)[0, 0])
        for stream, result in zip(maps, analyzer.analyze(clip), strict=True):
            maps[stream].append(result[0] / scale)
    np.savez(files.found, **{stream: np.stack(results) for stream, results in maps.items()})


if __name__ == "__main__":
    main()
