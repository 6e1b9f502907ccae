"""Whether three components are red, green, blue or luminance and chroma, and grey of either.

The code stream decides; where it is silent, the values do: most of an echo is black or grey, and
grey is R = G = B in one and Cb = Cr = 128 in the other. Only then the label is believed.
Letters in shape comments: r rows, c columns.
"""

from collections.abc import Callable

import numpy as np
from pydicom.pixels import convert_color_space

from inputs.codestream import RGB, YBR, Stream

LUMA = {  # weights of R, G, B
    "luma": (0.2989, 0.5870, 0.1140),
    "reference": (0.2989, 0.1140, 0.5870),  # the published script swaps green and blue
}
TOLERANCE = 6  # levels of 256 within which a pixel of a lossy picture counts as grey
EXACT = 1  # levels, of a picture without loss
SMOOTHER = 0.6  # part of the mean step between rows, from which an arrangement is another
EXACT_AS = 0.02  # share of grey pixels that the other arrangement may lack then
EVIDENT = 0.2  # difference of shares from which an arrangement is another
MANY = 0.3  # share of grey pixels from which the values may overrule a label
CLEARLY = 0.5  # the label's share is below this part of the other's


def label_colour(photometric: str) -> str:
    """Return RGB or YBR for a PhotometricInterpretation of three samples.

    A JPEG 2000 picture labelled YBR_ICT or YBR_RCT leaves its decoder as RGB.
    """
    return YBR if photometric in ("YBR_FULL", "YBR_FULL_422") else RGB


def grey_share(
    components: np.ndarray, colour: str, bits: int = 8, tolerance: int = TOLERANCE
) -> float:
    """Return the share of pixels of (..., 3) that are grey if the components are ``colour``."""
    step = 2 ** (bits - 8) if bits > 8 else 1
    values = components.astype(np.int32)
    if colour == YBR:
        off = np.abs(values[..., 1:] - 128 * step).max(axis=-1)
    else:
        off = values.max(axis=-1) - values.min(axis=-1)
    return float(np.mean(off <= tolerance * step))


def decide_colour(
    photometric: str, stream: Stream | None, components: np.ndarray, bits: int = 8
) -> tuple[str, str | None]:
    """Return RGB or YBR, and a line when that is not what the label says.

    Args:
        photometric: PhotometricInterpretation.
        stream: facts of the first picture, or None.
        components: (..., 3) pixels of some pictures as decoded, before any conversion.
        bits: of the components.
    """
    label = label_colour(photometric)
    if stream is not None and stream.colour is not None:
        read_as, reason = stream.colour, stream.reason
    else:
        other = RGB if label == YBR else YBR
        shares = {colour: grey_share(components, colour, bits) for colour in (label, other)}
        lies = shares[other] > MANY and shares[label] < CLEARLY * shares[other]
        read_as = other if lies else label
        reason = f"{100 * shares[read_as]:.0f} % of its pixels are grey only so"
    if read_as == label:
        return read_as, None
    names = {RGB: "RGB", YBR: "YCbCr"}
    return read_as, (
        f"PhotometricInterpretation (0028,0004) says {photometric}, the pixels are "
        f"{names[read_as]} ({reason}): read as {names[read_as]}"
    )


def decide_planar(
    samples: Callable[[int], np.ndarray], planar: int, bits: int = 8
) -> tuple[int, str | None]:
    """Return how plain components are arranged, and a line when PlanarConfiguration is wrong.

    Read in the wrong arrangement, grey pixels are no longer exactly grey, or rows that are one
    apart in the picture come from places that are three apart.

    Args:
        samples: of 0 (by pixel) or 1 (by plane): (k, r, c, 3) components of pictures read so.
        planar: what PlanarConfiguration says.
        bits: of the components.
    """
    shares, steps = [], []
    for arrangement in (0, 1):
        components = samples(arrangement)
        shares.append(max(grey_share(components, c, bits, EXACT) for c in (RGB, YBR)))
        steps.append(float(np.abs(np.diff(components.astype(np.int32), axis=1)).mean()))
    other = 1 - planar
    smoother = (
        steps[other] < SMOOTHER * steps[planar] and shares[other] >= shares[planar] - EXACT_AS
    )
    if shares[other] - shares[planar] < EVIDENT and not smoother:
        return planar, None
    words = ("pixel by pixel (0)", "plane by plane (1)")
    return 1 - planar, (
        f"PlanarConfiguration (0028,0006) says {planar}, the components lie {words[1 - planar]}"
    )


def to_rgb(components: np.ndarray, bits: int = 8) -> np.ndarray:
    """Return RGB of YCbCr (r, c, 3), full range, same dtype and bits."""
    if components.dtype == np.uint8:
        return convert_color_space(components, "YBR_FULL", "RGB")
    half, top = 2.0 ** (bits - 1), 2.0**bits - 1
    y, cb, cr = (components[..., k].astype(np.float64) - (half if k else 0) for k in range(3))
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return np.clip(np.floor(rgb + 0.5), 0, top).astype(components.dtype)


def to_grey(pixels: np.ndarray, grey: str = "luma") -> np.ndarray:
    """Return grey frames (n, r, c) float32 of grey (n, r, c) or RGB (n, r, c, 3) pixels."""
    if pixels.ndim == 3:
        return pixels.astype(np.float32)
    weights = np.array(LUMA[grey], np.float32)
    out = np.empty(pixels.shape[:3], np.float32)
    for k, frame in enumerate(pixels):  # frame by frame: a float32 colour movie may not fit
        out[k] = frame.astype(np.float32) @ weights
    return out
