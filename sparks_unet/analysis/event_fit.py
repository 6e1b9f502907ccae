"""Fit a profile to one event: a spot in space times a course in time, kept only where it holds.

A spark or puff is taken as S(y, x) K(t), fitted to dF/F0 in the box of the event: a (flat-topped)
Gaussian in space; in time a linear rise, a plateau where the data show one, and an exponential
decay, blurred where they show a rounded peak. Source: sections 8.10, 8.11 and 13.2 of the
specification.

Letters: t, y, x of the box of one event.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares

from analysis.short_course import weighed_course
from inputs.calibration import Calibration

BASELINE = 0.1  # largest dF/F0 under an event that the fit takes for bleaching
BLUR_FRAMES = 6  # shorter events do not determine a blur or a plateau
BLUR_STEP = 0.2  # frames, step at which a blurred time course is computed
BLUR_GAIN = 0.5  # a course with one more number must leave at most this share of the misfit
FOOT_SHARE = 0.05  # of the peak: where the rise of a blurred time course begins
SHORT_FRAMES = 8  # full duration at half maximum below which courses between the frames count
MEAN_ERROR = 0.06  # largest error of the height with which a mean course is taken
RISE_FRAMES = 3.0  # shorter rises are weighed over every course that fits their frames
EARLY = {"ftol": 1e-4, "xtol": 1e-4}  # of the spot in rounds before the last
ROUNDS = 3  # alternating estimates of the spatial and the temporal profile
MASS_FACTOR = (
    1.206  # mass of a Gaussian spark = 1.206 amplitude FWHM^3 (volume under a 3D Gaussian)
)


@dataclass(frozen=True)
class Course:
    """A time course in frames: linear rise, plateau, exponential decay, blurred by a Gaussian."""

    onset: float
    rise: float
    tau: float
    hold: float = 0.0
    blur: float = 0.0

    def at(self, t: np.ndarray) -> np.ndarray:
        """Return the course (N,) of height 1 at times (N,)."""
        return spark_course(t, self.onset, self.rise, self.tau, self.blur, self.hold)


def spark_course(
    t: np.ndarray, onset: float, rise: float, tau: float, blur: float = 0.0, hold: float = 0.0
) -> np.ndarray:
    """Return a linear rise to 1, a plateau and an exponential decay, blurred by a Gaussian.

    Args:
        t: times (N,) in frames.
        onset, rise, tau: of the sharp course, in frames.
        blur: standard deviation of the Gaussian in frames; 0 keeps the sharp peak.
        hold: length of the plateau in frames.
    """
    if blur:
        fine = np.arange(t[0] - 4 * blur, t[-1] + 4 * blur + BLUR_STEP, BLUR_STEP)
        course = ndimage.gaussian_filter1d(
            spark_course(fine, onset, rise, tau, 0.0, hold), blur / BLUR_STEP
        )
        return np.interp(t, fine, course)
    decay = np.exp(-np.clip((t - onset - rise - hold) / tau, 0, 50))
    return np.where(t < onset + rise, np.clip((t - onset) / rise, 0, 1), decay)


def course_times(
    rise: float, tau: float, blur: float, hold: float = 0.0
) -> tuple[float, float, float]:
    """Return (peak, time to peak, full duration at half maximum) of spark_course, in frames.

    The sharp course has 1, rise and rise / 2 + hold + tau ln 2.
    """
    if not blur:
        return 1.0, rise, rise / 2 + hold + tau * math.log(2)
    t = np.arange(-4 * blur, rise + hold + 6 * tau + 4 * blur, BLUR_STEP)
    values = spark_course(t, 0.0, rise, tau, blur, hold)
    top = float(values.max())
    above = t[values >= top / 2]
    foot = t[values >= FOOT_SHARE * top][0]
    return top, float(t[np.argmax(values)] - foot), float(above[-1] - above[0])


def spot(radius: np.ndarray, half_width: float, order: float) -> np.ndarray:
    """Return a spatial profile of amplitude 1: 1/2 at ``half_width``; order 2 is a Gaussian."""
    return np.exp(-math.log(2) * (radius / half_width) ** order)


def spot_slopes(
    rows: np.ndarray, columns: np.ndarray, height: float, half_width: float, order: float
) -> np.ndarray:
    """Return the derivatives (N, 5) of ``height`` times a spot at offsets from its centre (N,).

    Columns: height, column of the centre, half width, row of the centre, order.
    """
    radius = np.hypot(rows, columns)
    power = math.log(2) * (radius / half_width) ** order
    shape = np.exp(-power)
    steep = height * shape * power
    inwards = order * steep / np.maximum(radius, 1e-9) ** 2
    bend = -steep * np.log(np.maximum(radius, 1e-9) / half_width)
    slopes = (shape, inwards * columns, order * steep / half_width, inwards * rows, bend)
    return np.stack(slopes, axis=1)


@dataclass(frozen=True)
class Spot:
    """A fitted spot: place, half width and exponent in pixels of x, with the error of the width."""

    row: float
    column: float
    half: float
    order: float
    half_error: float

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the profile of height 1 at places (y, x)."""
        return spot(np.hypot(y - self.row, x - self.column), self.half, self.order)


@dataclass(frozen=True)
class Fit:
    """What the fit of one event found, in frames, pixels of x and dF/F0.

    Attributes:
        spot, course: the two profiles.
        height: of the course before blurring.
        trace: (t,) dF/F0 in the centre of the spot, least squares over its pixels.
        errors: of height, width, rise, tau and fdhm, as shares of them.
        weighed: rise and fdhm in frames where they are the middle of all courses that fit; their
            errors are half the range of these.
        misfit: standard deviation of the residuals of the trace over the height.
        clear: height over its error when only the height is unknown: how sure it is that there
            is an event at all.
    """

    spot: Spot
    course: Course
    height: float
    trace: np.ndarray
    errors: dict[str, float]
    misfit: float
    clear: float
    weighed: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def times(self) -> tuple[float, float, float]:
        """(peak of the course, rise, full duration at half maximum)."""
        one, known = self.course, self.weighed
        peak, rise, duration = course_times(one.rise, one.tau, one.blur, one.hold)
        return peak, known.get("rise", rise), known.get("fdhm", duration)

    @property
    def amplitude(self) -> float:
        """DF/F0 at the peak."""
        return self.height * self.times[0]


def fit_profiles(
    ratio: np.ndarray,
    precision: np.ndarray,
    peak: tuple[int, int, int],
    *,
    flat: bool,
    aspect: float = 1.0,
) -> Fit | None:
    """Fit S(y, x) K(t) to one event.

    Args:
        ratio: (t, y, x) dF/F0.
        precision: (t, y, x) weight of each voxel, 0 leaves it out.
        peak: (t, y, x) where the fit starts, in voxels of ``ratio``.
        flat: True fits the exponent of the spatial profile too (puffs).
        aspect: height over width of a pixel.

    Returns:
        Fit, or None where no event with finite width lies inside the box.
    """
    t = np.arange(ratio.shape[0], dtype=np.float64)
    y, x = np.mgrid[: ratio.shape[1], : ratio.shape[2]].astype(np.float64)
    y *= aspect
    start = (peak[0], peak[1] * aspect, float(peak[2]))
    near = ratio[peak[0], max(peak[1] - 1, 0) : peak[1] + 2, max(peak[2] - 1, 0) : peak[2] + 2]
    course = Course(peak[0] - 1.0, 1.0, max(4.0, ratio.shape[0] / 6))
    weighted = ratio * precision
    place = None
    try:
        for number in range(ROUNDS):
            # Least-squares map for this course, then least-squares trace for its spot.
            shape = course.at(t)
            weight = np.einsum("t,tyx->yx", shape**2, precision)
            image = np.einsum("t,tyx->yx", shape, weighted) / np.maximum(weight, 1e-9)
            exact = number == ROUNDS - 1
            place = _fit_spot(
                image, weight, (y, x), start, (float(near.mean()), place), flat=flat, exact=exact
            )
            profile = place.at(y, x)
            weight = np.einsum("yx,tyx->t", profile**2, precision)
            trace = np.einsum("yx,tyx->t", profile, weighted) / np.maximum(weight, 1e-9)
            height, course, errors, misfit, clear = _fit_course(
                *(t, trace, weight, peak[0]),
                before=course if number else None,
                last=number == ROUNDS - 1,
            )
    except (RuntimeError, ValueError):
        return None
    if height <= 0 or place.half > max(ratio.shape[1] * aspect, ratio.shape[2]):
        return None
    if course.tau > len(t) or course.onset + course.rise > len(t):
        return None
    errors["width"] = place.half_error / place.half
    fit = Fit(place, course, height, trace, errors, misfit / height, clear)
    sharp = not (course.blur or course.hold)
    return weighed(fit, weight) if sharp and (_is_short(fit) or course.rise < RISE_FRAMES) else fit


def _is_short(fit):
    """Return whether frames cannot tell the sharp course of a fit from others."""
    return fit.times[2] < SHORT_FRAMES


def weighed(fit: Fit, weight: np.ndarray) -> Fit:
    """Return a fit with what all courses say that its trace allows, with their range as error.

    A short rise of a long event is weighed alone; in a short event height and duration too.

    Args:
        fit: with a sharp course.
        weight: (t,) precision of the trace.
    """
    one = fit.course
    variance = (fit.misfit * fit.height) ** 2 * float(weight[weight > 0].mean())
    told = weighed_course(
        *(fit.trace, weight),
        peak=one.onset + one.rise,
        rise=one.rise,
        tau=one.tau,
        variance=variance,
    )
    errors = {name: error / max(value, 1e-9) for name, (value, error) in told.items()}
    names = ("height", "rise", "tau", "fdhm") if _is_short(fit) else ("rise",)
    changed = {
        "errors": fit.errors | {name: errors[name] for name in names},
        "weighed": {name: told[name][0] for name in ("rise", "fdhm") if name in names},
    }
    # where noise decides more than the frames, the best fit keeps its height
    if _is_short(fit) and errors["height"] <= MEAN_ERROR:
        peak, rise = told["peak"][0], told["rise"][0]
        changed |= {
            "course": Course(peak - rise, rise, told["tau"][0]),
            "height": told["height"][0],
        }
    return dataclasses.replace(fit, **changed)


def fit_event(
    ratio: np.ndarray,
    precision: np.ndarray,
    peak: tuple[int, int, int],
    scale: Calibration,
    *,
    flat: bool,
) -> dict[str, float]:
    """Fit one event; return its numbers in the units of the event table.

    Args:
        ratio, precision, peak, flat: of ``fit_profiles``.
        scale: Calibration.

    Returns:
        Dict of amplitude_df_f0, fwhm_um, fdhm_ms, rise_ms, tau_ms, mass_um3; empty when the fit
        finds no event with finite width inside the box.
    """
    fit = fit_profiles(ratio, precision, peak, flat=flat, aspect=scale.aspect)
    return {} if fit is None else in_units(fit, scale)


def in_units(fit: Fit, scale: Calibration) -> dict[str, float]:
    """Return the numbers of a fit in um and ms.

    A rise shorter than a frame is given as one frame: the data do not tell it from shorter ones.
    """
    _, rise, duration = fit.times
    fwhm = 2 * fit.spot.half * scale.pixel_x_um
    return {
        "amplitude_df_f0": fit.amplitude,
        "fwhm_um": fwhm,
        "fdhm_ms": duration * scale.frame_ms,
        "rise_ms": max(rise, 1.0) * scale.frame_ms,
        "tau_ms": fit.course.tau * scale.frame_ms,
        "mass_um3": MASS_FACTOR * fit.amplitude * fwhm**3,
    }


def _fit_spot(image, weight, places, peak, known, *, flat, exact):
    """Return the Spot in an image (y, x) whose pixels lie at ``places``.

    An image of one row is a line scan: its row is the centre. ``known``: height to start from, and
    Spot of the round before or None.
    """
    (y, x), (first, before) = places, known
    used = weight > 0
    line = len(image) == 1

    y, x = y[used], x[used]

    def model(height, column, half, *rest):
        row = 0.0 if line else rest[0]
        order = rest[-1] if flat else 2.0
        return height * spot(np.hypot(y - row, x - column), half, order)

    def slopes(height, column, half, *rest):
        row = 0.0 if line else rest[0]
        order = rest[-1] if flat else 2.0
        kept = [0, 1, 2] + [3] * (not line) + [4] * flat
        return spot_slopes(y - row, x - column, height, half, order)[:, kept]

    start = [max(first, 1e-3), peak[2], 8.0 if flat else 4.0]
    low, high = [0, peak[2] - 6, 0.5], [np.inf, peak[2] + 6, 2.0 * max(image.shape)]
    if not line:
        start, low, high = [*start, peak[1]], [*low, peak[1] - 6], [*high, peak[1] + 6]
    if flat:
        start, low, high = [*start, 3.0], [*low, 1.5], [*high, 8.0]
    if before is not None:
        start[1:3] = before.column, before.half
        start[3:] = [before.row] * (not line) + [before.order] * flat
    sigma = 1 / np.sqrt(weight[used])
    values, errors = _bounded_fit(
        *(model, image[used], start, (low, high), sigma), slopes=slopes, exact=exact
    )
    row = 0.0 if line else values[3]
    return Spot(row, values[1], values[2], values[-1] if flat else 2.0, math.sqrt(errors[2, 2]))


def _fit_course(t, trace, weight, peak_frame, *, before, last):
    """Return height, Course, errors, residual and clearness of a trace (t,).

    A constant under the event takes up what bleaching leaves between F0 and the event. Blur and
    plateau stay 0 unless one of them removes a good part of the misfit: few frames do not
    determine them; they are tried in the ``last`` round. ``before``: Course to start from.
    """
    used = weight > 0
    sigma = 1 / np.sqrt(weight[used])
    at, values = t[used], trace[used]

    # no exact slopes here: at its kinks they lead into a wrong minimum that differences step over
    def fit(model, start, low, high):
        # what lies below a frame time the data cannot tell; errors are no larger than this
        prior = [np.inf, 2.0, 1 + start[2], 1 + start[3], BASELINE, 2 + start[-1]][: len(start)]
        solution, errors = _bounded_fit(model, values, start, (low, high), sigma, prior=prior)
        return float((((model(*solution) - values) / sigma) ** 2).sum()), solution, errors

    def sharp(height, onset, rise, tau, baseline):
        return baseline + height * spark_course(at, onset, rise, tau)

    def blurred(height, onset, rise, tau, baseline, blur):
        return baseline + height * spark_course(at, onset, rise, tau, blur)

    def held(height, onset, rise, tau, baseline, hold):
        return baseline + height * spark_course(at, onset, rise, tau, 0.0, hold)

    start = [max(float(trace[peak_frame]), 1e-3), peak_frame - 1.5, 1.5, 5.0, 0.0]
    if before is not None:
        start[1:4] = before.onset, before.rise, before.tau
    low = [0, -5, 0.2, 0.3, -BASELINE]
    high = [np.inf, len(t), max(len(t) / 2, 2.0), 3.0 * len(t) + 10, BASELINE]
    best = (*fit(sharp, start, low, high), "")
    if last and course_times(*best[1][2:4], 0.0)[2] >= BLUR_FRAMES:
        limit = BLUR_GAIN * best[0]
        flat_start = _plateau_start(at, values)
        tries = (
            ("blur", blurred, [*best[1], 1.0], 0.2, len(t) / 4),
            ("hold", held, flat_start, 0.0, float(len(t))),
        )
        for name, model, begin, least, most in tries:
            one = fit(model, begin, [*low, least], [*high, most])
            if one[0] < min(limit, best[0]):
                best = (*one, name)
    misfit, numbers, errors, extra = best
    course = Course(*numbers[1:4], **({extra: numbers[5]} if extra else {}))
    residual = math.sqrt(misfit / max(sum(used) - len(numbers), 1) / float(weight[used].mean()))
    spread = np.sqrt(np.diag(errors))
    shares = {
        "height": spread[0] / max(numbers[0], 1e-9),
        "rise": spread[2] / max(numbers[2], 1.0),  # shorter ones are given as one frame
        "tau": spread[3] / max(numbers[3], 1e-9),
        "fdhm": _duration_error(numbers, errors, extra),
    }
    variance = misfit / max(sum(used) - len(numbers), 1)
    power = float((weight[used] * course.at(at) ** 2).sum())
    clear = numbers[0] * math.sqrt(power / max(variance, 1e-30))
    return numbers[0], course, shares, residual, clear


def _plateau_start(at, values):
    """Return height, onset, rise, tau, baseline and plateau that a trace shows at a glance."""
    top = max(float(np.quantile(values, 0.9)), 1e-3)
    above = np.flatnonzero(values > top / 2)
    first, last = above[0], above[-1]
    low = np.flatnonzero(values[:first] < 0.15 * top)
    high = np.flatnonzero(values[first : last + 1] > 0.85 * top)
    begin = at[low[-1]] if len(low) else at[0] - 1.0
    full = at[first + high[0]] if len(high) else at[first] + 1.0
    end = at[first + high[-1]] if len(high) else at[last]
    tau = max((at[last] - end) / math.log(2), 0.5)
    return [top, float(begin), max(float(full - begin), 0.5), tau, 0.0, max(float(end - full), 0.5)]


def _duration_error(numbers, errors, extra):
    """Return the error of the full duration at half maximum as a share of it."""

    def duration(values):
        more = {extra: values[2]} if extra else {}
        return course_times(*values[:2], more.get("blur", 0.0), more.get("hold", 0.0))[2]

    index = [2, 3] + ([5] if extra else [])
    values = np.array(numbers)[index]
    step = 1e-2 * np.maximum(values, 0.1)
    slope = [
        (duration(values + d) - duration(values - d)) / (2 * s)
        for d, s in zip(np.diag(step), step, strict=True)
    ]
    variance = slope @ errors[np.ix_(index, index)] @ slope
    return math.sqrt(max(variance, 0.0)) / max(duration(values), 1e-9)


def _bounded_fit(model, values, start, bounds, sigma, *, slopes=None, prior=None, exact=True):
    """Return (parameters, covariance) of a weighted least-squares fit that starts inside bounds.

    Args:
        model: function of the parameters that returns (N,).
        values, sigma: (N,) data and their errors up to a common factor.
        start, bounds: of the parameters.
        slopes: returns the derivatives (N, parameters); None: finite differences.
        prior: largest possible error of each parameter; None: none.
        exact: False stops early, where the result is a start for the next round.
    """
    if np.size(values) <= len(start):
        raise ValueError("fewer values than parameters")
    start = np.clip(start, np.add(bounds[0], 1e-6), np.subtract(bounds[1], 1e-6))
    solution = least_squares(
        lambda p: (model(*p) - values) / sigma,
        start,
        jac="2-point" if slopes is None else lambda p: slopes(*p) / sigma[:, None],
        bounds=bounds,
        x_scale="jac",
        **({} if exact else EARLY),
    )
    if not solution.success:
        raise RuntimeError(solution.message)
    variance = 2 * solution.cost / (len(values) - len(start))
    inverse = solution.jac.T @ solution.jac / max(variance, 1e-30)
    if prior is not None:
        inverse = inverse + np.diag(1 / np.square(prior))
    return solution.x, np.linalg.pinv(inverse, hermitian=True)
