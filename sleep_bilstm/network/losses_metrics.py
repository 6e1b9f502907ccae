"""Loss functions of the published network and Cohen's kappa as a Keras metric.

Source: specification section 7; Lin et al. 2017 (focal loss), Leng et al. 2022 (poly losses).
"""

import focal_loss
import keras
from keras import ops


@keras.saving.register_keras_serializable(package="sleep_bilstm")
class PolyLoss(keras.losses.Loss):
    """Poly-1 loss on softmax output: CE + (1 - p_y), or with focal terms (1 - p_y)^2 CE + (1 -
    p_y)^3.
    """

    def __init__(self, focal=False, name="poly", **kwargs):
        super().__init__(name=name, **kwargs)
        self.focal = focal

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss (B,) of labels (B,) or (B, 1) and probabilities (B, K)."""
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        entropy = keras.losses.sparse_categorical_crossentropy(labels, y_pred)
        wrong = 1 - ops.take_along_axis(y_pred, labels[:, None], axis=-1)[:, 0]
        return wrong**2 * entropy + wrong**3 if self.focal else entropy + wrong

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "focal": self.focal}


@keras.saving.register_keras_serializable(package="sleep_bilstm")
class AlignedLoss(keras.losses.Loss):
    """A loss that gets its labels in the shape that its outputs ask for, or nothing at all.

    Keras brings labels (B,) and outputs (B, 1) into line for its own losses, not for classes that
    derive from Loss: those of focal_loss would compare every output with every label, (B, B).
    """

    def __init__(self, loss, name="aligned", **kwargs):
        super().__init__(name=name, **kwargs)
        self.loss = loss

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Return the loss (B,) of labels (B,) or (B, 1) and probabilities (B, K) or (B, 1)."""
        if len(y_pred.shape) != 2 or len(y_true.shape) not in (1, 2):
            raise ValueError(
                f"labels {tuple(y_true.shape)} and outputs {tuple(y_pred.shape)}: expected (B,) or "
                "(B, 1) and (B, K)"
            )
        # Neither reshape works when there is not one label per output.
        shape = ops.shape(y_pred) if y_pred.shape[-1] == 1 else ops.shape(y_pred)[:1]
        return self.loss.call(ops.reshape(y_true, shape), y_pred)

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        held = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": held}

    @classmethod
    def from_config(cls, config: dict) -> "AlignedLoss":
        """Build the loss from its arguments."""
        return cls(keras.saving.deserialize_keras_object(config.pop("loss")), **config)


def make_loss(name: str, num_classes: int, gamma: float) -> keras.losses.Loss:
    """Return the loss ``name``; with two classes its binary form. Labels are brought into line.

    Raises:
        ValueError: a loss that needs three classes.
    """
    return AlignedLoss(plain_loss(name, num_classes, gamma), name=name)


def plain_loss(name: str, num_classes: int, gamma: float) -> keras.losses.Loss:
    """Return the loss ``name`` as its library has it; with two classes its binary form.

    Differs: with two classes the published script takes the sparse categorical cross-entropy of one
    output, and the poly losses exist for three classes only.
    """
    if num_classes == 2:
        if name == "focal":
            return focal_loss.BinaryFocalLoss(gamma)
        if name == "cross_entropy":
            return keras.losses.BinaryCrossentropy()
        raise ValueError(f"loss {name} needs three classes")
    if name == "focal":
        return focal_loss.SparseCategoricalFocalLoss(gamma)
    if name == "cross_entropy":
        return keras.losses.SparseCategoricalCrossentropy()
    return PolyLoss(focal=name == "polyfocal", name=name)


@keras.saving.register_keras_serializable(package="sleep_bilstm")
class CohenKappa(keras.metrics.Metric):
    """Cohen's kappa from a streaming confusion matrix; works on several replicas.

    0 when only one class is predicted; NaN when truth and prediction are both one identical class.
    """

    def __init__(self, num_classes=3, name="kappa", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.matrix = self.add_weight(
            shape=(num_classes, num_classes), initializer="zeros", name="matrix"
        )

    def update_state(
        self,
        y_true: keras.KerasTensor,
        y_pred: keras.KerasTensor,
        sample_weight: keras.KerasTensor | None = None,
    ) -> None:
        """Add labels (B,) or (B, 1) and probabilities (B, K), or (B, 1) for two classes."""
        truth = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        if self.num_classes == 2:
            states = ops.cast(ops.reshape(y_pred, (-1,)) > 0.5, "int32")
        else:
            states = ops.argmax(y_pred, axis=-1)
        rows, columns = (ops.one_hot(v, self.num_classes, dtype="float32") for v in (truth, states))
        if sample_weight is not None:
            rows = rows * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        self.matrix.assign_add(ops.matmul(ops.transpose(rows), columns))

    def result(self) -> keras.KerasTensor:
        """Return (po - pe) / (1 - pe)."""
        total = ops.sum(self.matrix)
        observed = ops.trace(self.matrix) / total
        expected = ops.sum(ops.sum(self.matrix, axis=0) * ops.sum(self.matrix, axis=1)) / total**2
        return (observed - expected) / (1 - expected)

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "num_classes": self.num_classes}
