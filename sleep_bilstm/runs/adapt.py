"""Fit the prior and the last layer of a trained network to one animal from a few scored minutes.

Called by main.py --mode predict --adapt FILE. Everything before the last layer stays as it is.
N epochs, K states, D values of the attention-weighted summary that the last layer reads.
"""

import itertools
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import adjusted_mutual_info_score, cohen_kappa_score

from common.files import InputError
from common.hashes import hashed_file
from inputs.dataloader_sleep import View
from inputs.preprocess import to_frames
from inputs.recordings import Recording
from inputs.scores import ACCUSLEEP, USUAL, doubt_lines
from inputs.states import EPOCH_S, STATE_NAMES
from inputs.storage import Storage
from inputs.tfrecords import epochs_of
from network.context import vectors_of
from network.model_attention_bilstm import AttentionBiLSTM
from settings import Settings

log = logging.getLogger(__name__)
BLOCKS = 10  # contiguous parts of the scored minutes, at most, left out in turn
FEWEST = 3  # epochs of a state, without which it counts as not scored
PRIOR_STRENGTH = 1.0  # of the penalty on the shifts of the states
SHIFTS = 40  # moves of the scores, at most, that the control tries
FEWEST_SHIFTS = 19  # fewer have no bound that one in twenty exceeds
CHANCE = 0.15  # adjusted mutual information of scores and moved scores that counts as none
BELOW_CHANCE = -0.1  # kappa below which scores contradict the network
OTHER_NAMES = 0.3  # gain of kappa by other names for the states that puts the codes in doubt
# name -> strength of the penalty on the change of the weights; None: the prior alone
KINDS = {"prior": None, **{f"last layer, penalty {s}": float(s) for s in (100, 10, 1)}}


@dataclass(frozen=True)
class Adaptation:
    """What is added to the logits of an epoch.

    Attributes:
        shift: (K,) of the states: their prior.
        weights: (D, K) on the summary, scaled; 0 where only the prior is fitted.
        mean, deviation: (D,) scale of the summary.
    """

    shift: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Return the probabilities (N, K) of epochs by their vectors; (N, 1) with two states."""
        logits, summary = parts_of(vectors, len(self.shift))
        probs = softmax(self.logits(logits, summary), axis=1).astype(np.float32)
        return probs if len(self.shift) > 2 else probs[:, 1:]

    def logits(self, logits: np.ndarray, summary: np.ndarray) -> np.ndarray:
        """Return the adapted logits (N, K)."""
        return logits + (summary - self.mean) / self.deviation @ self.weights + self.shift


def parts_of(vectors: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, K) and summary (N, D) of the vectors of network.context.vectors_of."""
    if num_classes > 2:
        return vectors[:, :num_classes].astype(float), vectors[:, num_classes:].astype(float)
    one = vectors[:, :1].astype(float)
    return np.concatenate([np.zeros_like(one), one], axis=1), vectors[:, 1:].astype(float)


def fit_layer(
    logits: np.ndarray,
    summary: np.ndarray,
    labels: np.ndarray,
    scored: np.ndarray,
    strength: float | None,
) -> Adaptation:
    """Find the change of the last layer that suits ``labels`` (N,), held near no change.

    Only the states in ``scored`` are told from each other: of a state that nobody scored nothing
    is learnt, its own logit stays.

    Args:
        logits, summary: (N, K) and (N, D).
        strength: of the penalty on the weights; None: only the prior is fitted.
    """
    states, width = logits.shape[1], 0 if strength is None else summary.shape[1]
    scale = summary.mean(axis=0), summary.std(axis=0) + 1e-6
    inputs = ((summary - scale[0]) / scale[1])[:, :width]
    target = np.eye(states)[labels][:, scored]

    def loss(flat):
        change = flat.reshape(width + 1, len(scored))
        own = logits[:, scored] + inputs @ change[:-1] + change[-1]
        wrong = softmax(own, axis=1) - target
        penalty = np.concatenate([np.full(width, strength or 0.0), [PRIOR_STRENGTH]])[:, None]
        value = -(target * log_softmax(own, axis=1)).sum() + (penalty * change**2).sum() / 2
        slope = np.concatenate([inputs.T @ wrong, wrong.sum(axis=0)[None]]) + penalty * change
        return value, slope.ravel()

    best = minimize(loss, np.zeros((width + 1) * len(scored)), jac=True, method="L-BFGS-B").x
    best = best.reshape(width + 1, len(scored))
    shift, weights = np.zeros(states), np.zeros((summary.shape[1], states))
    shift[scored] = best[-1]
    weights[np.ix_(range(width), scored)] = best[:-1]
    return Adaptation(shift, weights, *scale)


def blocks_of(count: int) -> list[np.ndarray]:
    """Return the places of ``count`` epochs in time order as blocks, none of which is empty."""
    return np.array_split(np.arange(count), min(BLOCKS, count))


def left_out(
    logits: np.ndarray,
    summary: np.ndarray,
    labels: np.ndarray,
    scored: np.ndarray,
    kind: float | str | None,
) -> np.ndarray:
    """Return the logits (N, K) of every block, adapted to the other blocks.

    ``kind`` is a strength of fit_layer; "frequencies": the logarithm of how often each state is
    scored in the other blocks, without a look at the signals.
    """
    result = np.empty_like(logits)
    for block in blocks_of(len(labels)):
        rest = np.setdiff1d(np.arange(len(labels)), block)
        if kind == "frequencies":
            result[block] = np.log(np.bincount(labels[rest], minlength=logits.shape[1]) + 0.5)
            continue
        fitted = fit_layer(logits[rest], summary[rest], labels[rest], scored, kind)
        result[block] = fitted.logits(logits[block], summary[block])
    return result


def losses_of(logits: np.ndarray, labels: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return the mean cross-entropy of every block among the ``scored`` states."""
    place = np.searchsorted(scored, labels)
    each = -log_softmax(logits[:, scored], axis=1)[np.arange(len(labels)), place]
    return np.array([each[b].mean() for b in blocks_of(len(labels))])


@dataclass(frozen=True)
class Trial:
    """What came of one set of labels on parts left out.

    Attributes:
        kind: the best of the adaptations.
        adapted: (N, K) logits of the parts left out.
        fall: of the mean loss, below the network as trained and below how often each state is
            scored, whichever is lower: the first is beaten by whatever makes a sure network less
            sure, the second only by what the signals say.
        error: standard error of ``fall`` over the blocks.
    """

    kind: str
    adapted: np.ndarray
    fall: float
    error: float

    @property
    def helps(self) -> bool:
        """Say whether there is evidence that the adaptation helps."""
        return self.fall > self.error


def try_kinds(
    logits: np.ndarray, summary: np.ndarray, labels: np.ndarray, scored: np.ndarray
) -> Trial:
    """Try every kind of adaptation on parts left out; return the best."""
    adapted = {k: left_out(logits, summary, labels, scored, s) for k, s in KINDS.items()}
    losses = {name: losses_of(own, labels, scored) for name, own in adapted.items()}
    best = min(losses, key=lambda name: losses[name].mean())
    often = left_out(logits, summary, labels, scored, "frequencies")
    references = [losses_of(own, labels, scored) for own in (logits, often)]
    fall = min(references, key=np.mean) - losses[best]
    return Trial(best, adapted[best], fall.mean(), fall.std(ddof=1) / np.sqrt(len(fall)))


def moves_of(labels: np.ndarray) -> np.ndarray:
    """Return by how many places the control moves labels (N,) in a circle: at most SHIFTS, spaced
    over the scored minutes.

    Only moves after which a label says next to nothing about the one that was in its place. Any
    other move leaves something to learn: bouts of equal length that change places are the same
    states under other names, and a last layer learns names.
    """
    places = np.arange(1, len(labels))
    apart = [
        adjusted_mutual_info_score(labels, np.roll(labels, place)) <= CHANCE for place in places
    ]
    usable = places[apart]
    spaced = np.linspace(0, len(usable) - 1, min(SHIFTS, len(usable))).round().astype(int)
    return usable[spaced]


def control_of(
    logits: np.ndarray, summary: np.ndarray, labels: np.ndarray, scored: np.ndarray
) -> dict:
    """Return what `adapt.json` says of the control: the falls of the loss with moved labels.

    ``bound_95`` is what one in twenty of them exceeds, None when there are too few to say.
    """
    moves = moves_of(labels)
    held = {"moves": len(moves), "bound_95": None, "highest": None}
    if len(moves) < FEWEST_SHIFTS:
        return held
    falls = [try_kinds(logits, summary, np.roll(labels, move), scored).fall for move in moves]
    bound = np.quantile(falls, 0.95, method="higher")
    return {**held, "bound_95": float(bound), "highest": float(max(falls))}


def doubt_of_codes(logits: np.ndarray, labels: np.ndarray, scored: np.ndarray) -> str:
    """Return why scores (N,) seem to be in other codes than those of training, or an empty text.

    Args:
        logits: (N, K) of the network as trained; a state that nobody scored counts as well, as
            what was meant for it may stand under another name.
        labels: (N,) scores.
        scored: the states that occur among them.
    """
    states = logits.argmax(axis=1)
    before = cohen_kappa_score(labels, states)
    others = {}
    for names in itertools.permutations(range(logits.shape[1]), len(scored)):
        renamed = np.zeros(scored.max() + 1, int)
        renamed[scored] = names
        others[names] = cohen_kappa_score(renamed[labels], states)
    best = max(others, key=others.get)
    if others[best] > before + OTHER_NAMES:
        return f"kappa {before:.2f} with the trained network, {others[best]:.2f} were they renamed"
    return f"kappa {before:.2f} with the trained network" if before < BELOW_CHANCE else ""


def adapt(
    vectors: np.ndarray, labels: np.ndarray, num_classes: int, *, codes_given: bool = False
) -> tuple[Adaptation, dict]:
    """Fit prior and last layer to scored epochs in time order, if that holds on parts left out.

    Args:
        vectors: (N, V) of network.context.vectors_of.
        labels: (N,) states.
        num_classes: K.
        codes_given: the user says what the scores mean, so that they are not doubted.

    Returns:
        the adaptation, which changes nothing where there is no evidence that it helps; and what
        `adapt.json` says of it, with its control where it seems to help: the same with labels that
        are moved.

    Raises:
        InputError: fewer than two states with three scored epochs each.
    """
    counts = np.bincount(labels, minlength=num_classes)
    scored = np.flatnonzero(counts >= FEWEST)
    names = STATE_NAMES[num_classes]
    held = ", ".join(f"{n} {c}" for n, c in zip(names, counts, strict=True))
    if len(scored) < 2:
        raise InputError(
            f"adapt: the scored minutes hold {held} epochs; expected at least {FEWEST} of two "
            "states: give more --adapt_minutes or another recording"
        )
    use = np.isin(labels, scored)
    labels = labels[use]
    logits, summary = parts_of(vectors[use], num_classes)
    trial = try_kinds(logits, summary, labels, scored)
    doubt = doubt_of_codes(logits, labels, scored)
    helps = trial.helps and (codes_given or not doubt)
    # Many fits, which change nothing where there is nothing to control.
    control = control_of(logits, summary, labels, scored) if helps else None
    bound = control and control["bound_95"]
    if bound is not None:
        helps = trial.fall > bound

    def kappa(values):
        return float(cohen_kappa_score(labels, scored[values[:, scored].argmax(axis=1)]))

    fall = {"mean": float(trial.fall), "standard_error": float(trial.error)}
    if bound is not None:
        fall["moved_labels"] = bound
    fitted = fit_layer(logits, summary, labels, scored, KINDS[trial.kind])
    if not helps:
        size = summary.shape[1]
        fitted = Adaptation(
            np.zeros(num_classes), np.zeros((size, num_classes)), np.zeros(size), np.ones(size)
        )
    return fitted, {
        "epochs": dict(zip(names, counts.tolist(), strict=True)),
        "used": trial.kind if helps else "none",
        "best": trial.kind,
        "kappa_left_out": {"before": kappa(logits), "after": kappa(trial.adapted)},
        "fall_of_loss": fall,
        "control": control,
        "doubt": doubt,
    }


def scored_epochs(
    network: AttentionBiLSTM, how: Storage, view: View, settings: Settings
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return vectors (N, V) and labels (N,) of the first --adapt_minutes that are scored in the
    recording --adapt, and its SHA-256.
    """
    wanted = round(settings.adapt_minutes * 60 / EPOCH_S)
    labels, vectors, path = [], [], Path(settings.adapt)
    codes = settings.codes or how.codes
    with (
        hashed_file(path) as known,
        Recording(path, mask_file=settings.mask or None, codes=codes) as recording,
    ):
        if recording.raw_labels is None:
            raise InputError(
                f"{path}: variable scoringindex_file is missing; --adapt needs a scored recording"
            )
        for line in doubt_lines(
            {f"{recording.name.date}-{recording.name.mouse}": [recording.raw_labels]}, codes
        ):
            log.warning("%s", line)
        for _, label, mask, signals in epochs_of(recording, how):
            inputs = view.frames(to_frames(signals, mask))
            outputs = network.infer(np.stack(inputs), settings.frame_chunk)
            vectors.append(vectors_of(outputs).mean(axis=0))
            labels.append(view.label(label))
            if len(labels) == wanted:
                break
    if not labels:
        raise InputError(f"{path}: holds no scored epoch; --adapt needs a scored recording")
    if len(labels) < wanted:
        log.info("note: %s holds %d scored epochs, %d were asked for", path, len(labels), wanted)
    return np.stack(vectors), np.array(labels), known.sha256


def adapted_to(
    network: AttentionBiLSTM, how: Storage, view: View, settings: Settings
) -> tuple[Adaptation, dict]:
    """Fit to the scored minutes of --adapt; return the adaptation and what `adapt.json` says."""
    vectors, labels, content = scored_epochs(network, how, view, settings)
    fitted, about = adapt(vectors, labels, view.num_classes, codes_given=bool(settings.codes))
    say_adapted(about, settings.adapt)
    return fitted, {"file": settings.adapt, "sha256": content, **about}


def say_adapted(about: dict, path: str) -> None:
    """Log what came of the adaptation to the scores in ``path``."""
    kappas, fall, control = about["kappa_left_out"], about["fall_of_loss"], about["control"]
    why = ""
    if about["used"] == "none":
        doubted = fall["mean"] > fall["standard_error"] and control is None
        why = "the scores are doubted" if doubted else "no evidence that it helps"
        why = f": {why}, nothing is changed"
    log.info(
        "adapted to %s: %s; on parts left out kappa %.2f before, %.2f after; the loss falls by "
        "%.3f (standard error %.3f)%s",
        path,
        about["used"],
        kappas["before"],
        kappas["after"],
        fall["mean"],
        fall["standard_error"],
        why,
    )
    if control and control["bound_95"] is None:
        log.info(
            "no control: only %d moves of the scores leave nothing to learn, %d are needed; too "
            "few bouts, give more --adapt_minutes",
            control["moves"],
            FEWEST_SHIFTS,
        )
    elif control:
        log.info(
            "control, %d moves of the scores: one in twenty lets the loss fall by more than %.3f",
            control["moves"],
            control["bound_95"],
        )
    if about["doubt"]:
        log.warning(
            "warning: %s: the scores contradict the network (%s); if they are in other codes, say "
            "so with --codes, such as --codes %s; --codes %s says that they are not",
            path,
            about["doubt"],
            ACCUSLEEP,
            USUAL,
        )
    unscored = [name for name, count in about["epochs"].items() if count < FEWEST]
    if unscored:
        log.info("%s: too few scored epochs to learn from; left as trained", ", ".join(unscored))
