"""Parameter counts, layer names and shapes of the network."""

import math

import keras
import pytest

from network.model_zoo import FactorAdam, lr_factors, make_optimizer, single_stream, two_stream
from network.resnet_builder_keras import Resnet3DBuilder, bn_relu, trunk

COUNTS = {  # grey stream (all, trainable), flow stream, two streams (all, trainable)
    18: (33_170_816, 33_163_008, 33_192_768, 66_364_609, 66_348_993),
    34: (63_491_584, 63_476_352, 63_513_536, 127_006_145, 126_975_681),
    50: (46_219_392, 46_173_952, 46_241_344, 92_464_833, 92_373_953),
    101: (85_343_872, 85_246_208, 85_365_824, 170_713_793, 170_518_465),
    152: (117_571_712, 117_427_968, 117_593_664, 235_169_473, 234_881_985),
}


def n_values(variables):
    return sum(math.prod(variable.shape) for variable in variables)


@pytest.mark.parametrize(
    "depth", [18, 50, *(pytest.param(d, marks=pytest.mark.slow) for d in (34, 101, 152))]
)
def test_parameter_counts(depth):
    # In a stateless scope variables have shapes but no values: depth 152 costs no gigabyte.
    with keras.StatelessScope():
        model = two_stream(depth=depth)
    grey, flow = (
        [v for v in model.variables if v.path.startswith(prefix)] for prefix in ("grey_", "of_")
    )
    counts = (
        n_values(grey),
        n_values(v for v in grey if v.trainable),
        n_values(flow),
        n_values(model.variables),
        n_values(model.trainable_variables),
    )
    assert counts == COUNTS[depth]


def test_shapes_at_the_published_size():
    with keras.StatelessScope():
        model = two_stream(depth=50, width=8)
    shapes = {
        "grey_stem_conv": (16, 56, 56, 8),
        "grey_stem_pool": (8, 28, 28, 8),
        "grey_s1b3_add": (8, 28, 28, 32),
        "of_s2b1_add": (4, 14, 14, 64),
        "of_s3b6_add": (2, 7, 7, 128),
        "of_s4b3_add": (1, 4, 4, 256),
    }
    for name, shape in shapes.items():
        assert tuple(model.get_layer(name).output.shape[1:]) == shape
    assert [tuple(x.shape[1:]) for x in model.inputs] == [(32, 112, 112, 1), (32, 112, 112, 2)]
    names = {layer.name for layer in model.layers}
    assert "grey_s1b1_short" in names
    assert "grey_s1b1_pre1_bn" not in names


def test_builder_heads():
    with keras.StatelessScope():
        many = Resnet3DBuilder.build_resnet_34((8, 32, 32, 1), 600, width=4)
        one = Resnet3DBuilder.build_resnet_18((8, 32, 32, 1), 1, width=4)
    assert many.get_layer("preds").activation.__name__ == "softmax"
    assert one.get_layer("preds").activation.__name__ == "sigmoid"
    with pytest.raises(ValueError, match="depth 20"):
        two_stream(depth=20, width=4)


def test_learning_rate_factors():
    model = single_stream("grey", input_size=(8, 32, 32), depth=18, width=2)
    factors = lr_factors(model.trainable_variables, {"conv3d": 0.5, "preds": 0})
    assert factors["grey_s2b1_short/bias"] == 0.5
    assert factors["preds/kernel"] == 0
    assert "grey_stem_bn/gamma" not in factors
    optimizer = make_optimizer(model, 0.1, lr_weight={"conv3d": 0.5, "preds": 0})
    assert isinstance(optimizer, FactorAdam)
    before = {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables}
    ones = [keras.ops.ones(v.shape) for v in model.trainable_variables]
    optimizer.apply(ones, model.trainable_variables)
    moved = {v.path: abs(v.numpy() - before[v.path]).max() for v in model.trainable_variables}
    assert moved["preds/kernel"] == 0
    assert moved["grey_stem_conv/bias"] == pytest.approx(0.05, rel=1e-4)
    assert moved["grey_stem_bn/gamma"] == pytest.approx(0.1, rel=1e-4)


def test_hints_ask_no_keras_for_a_name_of_another():
    # innvestigate's worker imports the module under Keras 2.14, which knows no KerasTensor.
    for function in (bn_relu, trunk):
        hints = function.__annotations__
        assert "keras.KerasTensor" in hints.values()
        assert all(isinstance(hint, str) for hint in hints.values())
