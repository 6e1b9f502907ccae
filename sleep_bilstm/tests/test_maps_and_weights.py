"""Maps inside the mask of their own run, and weights that belong to their network."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from analysis.atlas import region_table
from analysis.maps import SubjectMaps, masks_of
from analysis.occlusion import Occlusion
from common.files import InputError
from inputs.dataloader_sleep import Epochs, View
from inputs.mat_writer import write_recording
from inputs.shards import find_records, in_time_order
from inputs.storage import Storage
from inputs.tfrecords import create
from network.checkpoints import find_tf2_prefix, load_tf2, load_weights, save_weights
from network.model_attention_bilstm import Architecture, build
from runs.setup import check_replicas

SHAPE = {"num_frames": 4, "height": 16, "width": 16, "num_filters": 4, "num_rnn_units": 3}
FIXTURE = Path(__file__).parent / "fixtures" / "checkpoint_tf2.npz"


def test_regions_end_with_the_mask():
    parcels = np.zeros((8, 8), int)
    parcels[:4], parcels[4:6] = 1, 2
    mask = np.zeros((8, 8), bool)
    mask[:2] = True
    table = region_table({"NREM": mask.astype(float)}, parcels, ("a", "b", "c"), mask)
    assert table["pixels"].tolist() == [16, 0, 0]
    assert table["NREM"].tolist()[0] == 1.0
    assert table["NREM"].isna().tolist() == [False, True, True]


def test_each_run_has_its_own_mask(tmp_path):
    movie = np.random.default_rng(0).normal(size=(2, 168, 16, 16)).astype(np.float32)
    masks = [np.ones((16, 16), bool) for _ in range(2)]
    masks[0][:, 12:], masks[1][:, :4] = False, False
    for run, mask in enumerate(masks, 1):
        path = tmp_path / "raw" / f"200128-L2-fc{run}-a.mat"
        write_recording(path, movie, mask, [0, 1])
    create(tmp_path / "raw", tmp_path / "out", Storage())
    epochs = Epochs(in_time_order(find_records(tmp_path / "out")), View(4))
    union, own = masks_of(epochs)
    assert union.all()
    assert [np.array_equal(m, masks[i // 2]) for i, m in enumerate(own)] == [True] * 4
    subject = SubjectMaps(union, 3, only_correct=False, masks=own)
    # The map of run 1 is 1 inside its mask, that of run 2 is 3; outside both are 0.
    maps = np.stack([masks[0] * 1.0, masks[0] * 1.0, masks[1] * 3.0, masks[1] * 3.0])
    subject.add(maps, np.zeros((4, 4, 16, 16)), [0] * 4, [0] * 4, range(4))
    mean = subject.average(0)
    assert (mean[:, :4] == 1).all()
    assert (mean[:, 4:12] == 2).all()
    assert (mean[:, 12:] == 3).all()


@pytest.mark.parametrize("kind", ["temporal", "minmax", "none"])
def test_hidden_with_what_says_nothing(kind):
    frames = np.random.default_rng(0).random((2, 4, 16, 16)).astype(np.float32) + 5
    frames[:, :, :, 12:] = 0  # outside the brain
    mask = np.zeros((16, 16), bool)
    mask[:4, 10:14] = True
    network = build(Architecture(**SHAPE, num_blocks=1), seed=0)
    hidden = Occlusion(network, mask[None], normalization=kind)._hide(frames, mask)
    inside = frames[:, :, :, :12].mean(axis=(1, 2, 3))
    wanted = np.zeros(2) if kind == "temporal" else inside
    for movie, value in zip(hidden, wanted, strict=True):
        np.testing.assert_allclose(movie[:, :4, 10:12], value, rtol=1e-6)
    assert not hidden[:, :, :, 12:].any()
    np.testing.assert_array_equal(hidden[..., ~mask], frames[..., ~mask])


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ({"num_blocks": 3}, {"num_blocks": 2}),
        ({"num_blocks": 2, "spatial_attention": "cbam"}, {"num_blocks": 2}),
        ({"num_blocks": 2, "num_classes": 2}, {"num_blocks": 2}),
        ({"num_blocks": 2, "temporal_attention": "dense"}, {"num_blocks": 2}),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, stored, wanted):
    path = tmp_path / "best.weights.h5"
    save_weights(build(Architecture(**SHAPE, **stored), seed=1), path)
    network = build(Architecture(**SHAPE, **wanted), seed=0)
    before = [np.array(w) for w in network.model.get_weights()]
    with pytest.raises(InputError, match="does not hold the weights of the network"):
        load_weights(network, path)
    for old, new in zip(before, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    load_weights(build(Architecture(**SHAPE, **stored), seed=2), path)


def test_weights_saved_with_an_optimiser_load(tmp_path):
    network = build(Architecture(**SHAPE, num_blocks=1), seed=1)
    network.model.compile("adam", "sparse_categorical_crossentropy")
    network.model.fit(np.zeros((2, 4, 16, 16, 1)), np.zeros(2), verbose=0)
    path = tmp_path / "best.weights.h5"
    save_weights(network, path)
    with h5py.File(path) as file:
        assert "optimizer" in file
    again = build(Architecture(**SHAPE, num_blocks=1), seed=0)
    load_weights(again, path)
    np.testing.assert_array_equal(again.model.get_weights()[0], network.model.get_weights()[0])


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    with np.load(FIXTURE, allow_pickle=False) as held:
        for key, name in (("index", "ckpt_3.index"), ("data", "ckpt_3.data-00000-of-00001")):
            (folder / name).write_bytes(held[key].tobytes())
    return folder / "ckpt_3"


def test_checkpoint_in_several_files(checkpoint, tmp_path):
    reader = tf.train.load_checkpoint(str(checkpoint))
    names = [n for n in reader.get_variable_to_shape_map() if "GRAPH" not in n]
    half, out = len(names) // 2, tmp_path / "two"
    out.mkdir()
    for part, own in enumerate((names[:half], names[half:])):
        tf.raw_ops.SaveV2(
            prefix=str(out / f"part{part}"),
            tensor_names=own,
            shape_and_slices=[""] * len(own),
            tensors=[tf.constant(reader.get_tensor(n)) for n in own],
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(out / "part0"), str(out / "part1")],
        destination_prefix=str(out / "ckpt_3"),
    )
    frames = (4, 16, 16)
    first, second = (
        load_tf2(find_tf2_prefix(p), frames=frames) for p in (checkpoint, out / "ckpt_3")
    )
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    (out / "ckpt_3.data-00001-of-00002").unlink()
    with pytest.raises(InputError, match=r"data-00001-of-00002: this file"):
        find_tf2_prefix(out / "ckpt_3")
    shutil.rmtree(out)


def test_half_precision_pools_in_single(two_devices):
    """One block leaves 128 x 128 values to pool: their sum is beyond float16."""
    shape = {"num_frames": 2, "height": 128, "width": 128, "num_blocks": 1, "num_filters": 2}
    network = build(Architecture(**shape, num_rnn_units=2, mixed_precision="float16"), seed=0)
    frames = np.full((1, 2, 128, 128), 40, np.float32)
    features = network.features(frames, 2)
    assert np.isfinite(features).all()
    activation = network.activations(frames, 2)
    assert abs(activation.sum(axis=(2, 3))).max() > 65504
    np.testing.assert_allclose(features, activation.mean(axis=(2, 3)), rtol=1e-3)


def test_batch_is_shared_evenly(two_devices):
    strategy = tf.distribute.MirroredStrategy(two_devices)
    check_replicas(4, 100, strategy)
    for batch, count in ((3, 100), (4, 3)):
        with pytest.raises(InputError, match="expected a multiple of 2"):
            check_replicas(batch, count, strategy)
