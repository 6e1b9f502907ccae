"""Learning-rate schedules: cyclic and cosine (specification 7.4).

Both count in float64: the float32 ``CosineDecay`` of Keras is off by 6e-8, more than the parity
fixtures allow, and has no restart.
"""

import keras
from keras import ops

MODES = ("triangular", "triangular2", "exp_range")


def _float64(number):
    # Without the type a Python float becomes float32 on the way.
    return ops.convert_to_tensor(number, dtype="float64")


class CyclicLR(keras.optimizers.schedules.LearningRateSchedule):
    """Triangle between two rates, one way every ``step_size`` updates.

    With it = update, c = floor(1 + it / (2 s)), x = |it / s - 2 c + 1| the rate is
    base + (max - base) max(0, 1 - x) times 1, 2^-(c-1) or gamma^it.

    Args:
        base_lr, max_lr: lowest and highest rate.
        step_size: updates of half a cycle.
        mode: ``triangular``, ``triangular2`` (halved each cycle) or ``exp_range``.
        gamma: factor per update, used by ``exp_range`` only.

    Source: L. Smith, Cyclical learning rates for training neural networks (2017).
    """

    def __init__(self, base_lr, max_lr, step_size, mode="triangular", gamma=1.0):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
        self.base_lr, self.max_lr, self.step_size = base_lr, max_lr, step_size
        self.mode, self.gamma = mode, gamma

    def __call__(self, step):
        """Return the rate of update ``step`` (0, 1, ...), float64."""
        it = ops.cast(step, "float64")
        step_size = _float64(float(self.step_size))
        cycle = ops.floor(1.0 + it / (2.0 * step_size))
        x = ops.abs(it / step_size - 2.0 * cycle + 1.0)
        height = ops.maximum(1.0 - x, ops.zeros_like(x))
        if self.mode == "triangular2":
            height = height * ops.power(_float64(0.5), cycle - 1.0)
        elif self.mode == "exp_range":
            height = height * ops.power(_float64(self.gamma), it)
        return self.base_lr + (self.max_lr - self.base_lr) * height

    def get_config(self) -> dict:
        return {
            "base_lr": self.base_lr,
            "max_lr": self.max_lr,
            "step_size": self.step_size,
            "mode": self.mode,
            "gamma": self.gamma,
        }


class CosineAnnealing(keras.optimizers.schedules.LearningRateSchedule):
    """Rate lr * 0.5 (1 + cos(pi t / (T - 1))), t = update modulo T.

    Differs: the published T is floor(N / batch) * epochs although an epoch has ceil(N / batch)
    updates, so its last epochs can restart at the full rate; callers pass the true total T here.

    Args:
        lr: rate of the first update.
        total: T, the number of updates of a whole run.
    """

    def __init__(self, lr, total):
        self.lr, self.total = lr, int(total)

    def __call__(self, step):
        """Return the rate of update ``step`` (0, 1, ...), float64."""
        t = ops.mod(ops.cast(step, "float64"), float(self.total))
        half_turn = _float64(3.141592653589793) * t / max(self.total - 1.0, 1.0)
        return self.lr * 0.5 * (1.0 + ops.cos(half_turn))

    def get_config(self) -> dict:
        return {"lr": self.lr, "total": self.total}
