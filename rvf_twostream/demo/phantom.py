"""A beating heart in the apical four-chamber view, drawn as an ultrasound scanner would see it.

Specification section 4.7. Lengths are cm; the probe is at the origin, x points to the viewer's
right, z down. The heart has its own axes: u to the right, v from apex to base. Every polar pixel is
traced back to its place in the end-diastolic heart (its material point), where the kind of tissue
and the scatterers are looked up, so that speckle moves with the tissue.

Letters in shape comments: d depths, b beams, r rows, c columns.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

# sector
DEPTH_CM = 16.0
HALF_ANGLE_DEG = 40.0
N_DEPTHS, N_BEAMS = 320, 192  # polar pixels; half of both for pictures below SMALL_ROWS
SMALL_ROWS = 240
FIELD_PER_CM = 42  # scatterers
FIELD_SIGMA = 2.0  # samples
FIELD_HALF_CM = 12.5  # the field covers 25 x 25 cm about the heart
# heart at end-diastole
LV_LENGTH, RV_LENGTH = 8.6, 7.6
SEPTUM, RV_WALL, LV_WALL = 0.9, 0.45, 0.95
RV_APEX = 0.9  # the right apex lies this much below the left one
ATRIUM = 4.3  # length of the atria below the valve plane
APEX_DEPTH = 2.3  # depth of the left apex
HINGE_RADIUS = 0.32
VALVE_HALF_THICKNESS = 0.1
CLOSED_DEG, SWING_DEG = 8.0, 16.0  # a wide swing would hide the annulus in the flow
FADE = 5.0  # tissue outside the heart follows it over this distance
# time
SYSTOLE = 0.36  # part of the cycle
EARLY, EARLY_PART = 0.7, 0.38  # filling: share of the stroke, part of diastole
KICK_PART = 0.28  # atrial kick, last part of diastole
# echo
ECHO = {"tissue": 0.2, "lv": 0.75, "rv": 0.8, "blood": 0.02, "valve": 0.6, "hinge": 1.6}
FRESH_POWER = 0.05  # part of the speckle that is new in every frame
PSF_DEPTH, PSF_BEAMS = 0.9, 1.6  # samples
LOSS_PER_CM = 0.03
RANGE_DB = 52.0
REFERENCE = 3.4  # envelope that is white at 0 dB gain


@dataclass(frozen=True)
class Heart:
    """One recording: anatomy, function, pose and timing.

    Lengths in cm, ``tapse_cm`` along the depth axis, ``fac`` and ``ef`` as fractions, ``cycle`` and
    ``systole`` in frames, so that end-diastole and end-systole fall on frames.
    """

    lv_diameter: float
    rv_width: float
    tapse_cm: float
    fac: float
    ef: float
    shift_x: float
    shift_z: float
    rotation_deg: float
    gain_db: float
    cycle: int
    systole: int
    first: int  # frame of the cycle with which the movie starts
    lv_length: float = LV_LENGTH
    depth_cm: float = DEPTH_CM  # of the picture

    @property
    def centre_u(self) -> float:
        """Middle of the heart on u, whose zero is the right-ventricular face of the septum."""
        return (SEPTUM + self.lv_diameter + LV_WALL - self.rv_width - RV_WALL) / 2

    def to_image(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (x, z) of heart coordinates."""
        cos, sin = self._turn()
        du, dv = u - self.centre_u, v - self.lv_length / 2
        x = self.shift_x + cos * du - sin * dv
        z = APEX_DEPTH + self.lv_length / 2 + self.shift_z + sin * du + cos * dv
        return x, z

    def to_heart(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (u, v) of image coordinates."""
        cos, sin = self._turn()
        dx, dz = x - self.shift_x, z - APEX_DEPTH - self.lv_length / 2 - self.shift_z
        return self.centre_u + cos * dx + sin * dz, self.lv_length / 2 - sin * dx + cos * dz

    def _turn(self):
        angle = np.deg2rad(self.rotation_deg)
        return float(np.cos(angle)), float(np.sin(angle))  # Python floats keep arrays float32

    @functools.cached_property
    def rv_factors(self) -> tuple[float, float]:
        """Shortening of the right ventricle at end-systole: length L, width T.

        The lateral annulus rises by the TAPSE on the depth axis and the area shrinks by FAC:
        cos H L - sin W T = TAPSE and (1 - L)(1 - T) = 1 - FAC. Without rotation L = TAPSE / H.
        """
        cos, sin = self._turn()
        a, b = cos * RV_LENGTH, sin * self.rv_width
        middle = a + b + self.tapse_cm
        root = np.sqrt(middle**2 - 4 * a * (self.tapse_cm + b * self.fac))
        length = float((middle - root) / (2 * a))
        return length, 1 - (1 - self.fac) / (1 - length)

    @property
    def lv_factors(self) -> tuple[float, float]:
        """Shortening of the left ventricle at end-systole, the same on length and both widths."""
        factor = 1 - (1 - self.ef) ** (1 / 3)
        return factor, factor

    def contraction(self, frame: np.ndarray | int) -> np.ndarray:
        """Return g of frame numbers: 0 at end-diastole, 1 at end-systole."""
        k = (np.asarray(frame) + self.first) % self.cycle
        diastole = self.cycle - self.systole
        t = (k - self.systole) / diastole  # time in diastole, 0..1
        rise = _raised_cosine(k / self.systole)
        early = EARLY * _raised_cosine(t / EARLY_PART)
        kick = (1 - EARLY) * _raised_cosine((t - 1 + KICK_PART) / KICK_PART)
        return np.where(k <= self.systole, rise, 1 - early - kick)

    def opening(self, frame: np.ndarray | int) -> np.ndarray:
        """Return how far the valves to the ventricles are open, 0..1."""
        k = (np.asarray(frame) + self.first) % self.cycle
        t = (k - self.systole) / (self.cycle - self.systole)
        early = np.sin(np.pi * np.clip(t / (1.3 * EARLY_PART), 0, 1))
        kick = 0.7 * np.sin(np.pi * np.clip((t - 1 + KICK_PART) / KICK_PART, 0, 1))
        return np.where(k <= self.systole, 0.0, np.maximum(early, kick))

    def annulus(self, g: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return (x, z) of the lateral tricuspid annulus at contraction ``g``."""
        length, width = self.rv_factors
        u = -self.rv_width * (1 - width * np.asarray(g))
        v = RV_APEX + RV_LENGTH * (1 - length * np.asarray(g))
        return self.to_image(u, v)

    def outline(self, side: str, g: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
        """Return x, z (n,) of the closed outline of the cavity ``side`` ("rv" or "lv")."""
        s = np.concatenate([np.linspace(0, 1, n - 2), [1, 0]])  # wall from apex to base, septum
        wall = np.arange(n) < n - 2
        if side == "rv":
            length, width = self.rv_factors
            u = np.where(wall, -self.rv_width * _profile(s), 0) * (1 - width * g)
            v = RV_APEX + RV_LENGTH * s * (1 - length * g)
        else:
            length, width = self.lv_factors
            face = SEPTUM
            u = (face + np.where(wall, self.lv_diameter * _profile(s), 0)) * (1 - width * g)
            v = self.lv_length * s * (1 - length * g)
        return self.to_image(u, v)


def _raised_cosine(t):
    return (1 - np.cos(np.pi * np.clip(t, 0, 1))) / 2


def _profile(s):
    """Width of a ventricle at the part ``s`` of its length from the apex, 0..1."""
    s = np.clip(s, 0, 1)
    return np.sqrt(s * (2 - s))


def coarseness(rows: int) -> int:
    """Return by how much the scanner's own pixels and scatterers are coarser: 1, or 2.

    A picture of few rows cannot show the full grid: its pixels would skip whole speckles.
    """
    return 2 if rows < SMALL_ROWS else 1


@functools.lru_cache(maxsize=2)
def polar_grid(
    coarse: int, depth_cm: float = DEPTH_CM
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, z (d, b) of the polar pixels and their depth (d, 1)."""
    d, b = N_DEPTHS // coarse, N_BEAMS // coarse
    depth = (np.arange(d, dtype=np.float32)[:, None] + 0.5) * (depth_cm / d)
    angle = np.deg2rad(np.linspace(-HALF_ANGLE_DEG, HALF_ANGLE_DEG, b, dtype=np.float32))
    return depth * np.sin(angle), depth * np.cos(angle), depth


class Sides(NamedTuple):
    """What stays the same over a movie, (d, b): place of the polar pixels and their heart's side.

    ``u``, ``v`` are heart coordinates of the pixels; ``right`` marks right ventricle and atrium;
    the others belong to the side on which a pixel lies: apex on v, length, width and wall of its
    ventricle, ``floor`` the lower border of its atrium as a part of the length, ``edge`` the
    distance of the heart's outer face on u.
    """

    u: np.ndarray
    v: np.ndarray
    right: np.ndarray
    apex: np.ndarray
    length: np.ndarray
    width: np.ndarray
    wall: np.ndarray
    floor: np.ndarray
    edge: np.ndarray


@functools.lru_cache(maxsize=1)
def sides(heart: Heart, coarse: int) -> Sides:
    """Return the Sides of a heart; kept for the next frame.

    Args:
        coarse: see ``coarseness``.
    """
    x, z, _ = polar_grid(coarse, heart.depth_cm)
    u, v = heart.to_heart(x, z)
    right = u < 0
    length = np.where(right, RV_LENGTH, heart.lv_length)
    return Sides(
        u,
        v,
        right,
        apex=np.where(right, RV_APEX, 0),
        length=length,
        width=np.where(right, heart.rv_width, heart.lv_diameter),
        wall=np.where(right, RV_WALL, LV_WALL),
        floor=1 + ATRIUM / length,
        edge=np.where(right, heart.rv_width + RV_WALL, SEPTUM + heart.lv_diameter + LV_WALL),
    )


def material_points(heart: Heart, g: float, coarse: int) -> tuple[np.ndarray, np.ndarray]:
    """Trace polar pixels back to end-diastole.

    Args:
        g: contraction.
        coarse: see ``coarseness``.

    Returns:
        u, v: (d, b) material coordinates.
    """
    u, v, right, *_, edge = sides(heart, coarse)
    s, apex, length, floor = _single_precision(heart, coarse)
    (lv_short, lv_narrow), (rv_short, rv_narrow) = (
        np.array(factors, np.float32) * g for factors in (heart.lv_factors, heart.rv_factors)
    )
    base = np.where(right, 1 - rv_short, 1 - lv_short)  # valve plane now, as a part of the length
    below = s > base
    into = np.clip((s - base) / (floor - base), 0, 1)  # the atria's lower border does not move
    s0 = np.where(below, 1 + into * (floor - 1), s / base)
    s0 = np.where(s > floor, s, s0)
    u0 = u / (1 - np.where(right, rv_narrow, lv_narrow) * np.where(below, 1 - into, 1))
    v0 = apex + s0 * length
    # Tissue outside the heart follows it less and less.
    outside = np.maximum(np.abs(u0) - edge * np.sqrt(np.clip(s0 + 0.15, 0, 1)), 0)
    outside = np.maximum(outside, np.maximum(-0.1 - s0, 0) * length)
    follow = np.clip(1 - outside / FADE, 0, 1)
    return u + follow * (u0 - u), v + follow * (v0 - v)


@functools.lru_cache(maxsize=1)
def _single_precision(heart, coarse):
    """Return s (part of the length), apex, length and floor of ``sides``, float32."""
    still = sides(heart, coarse)
    apex, length = still.apex.astype(np.float32), still.length.astype(np.float32)
    return (still.v - apex) / length, apex, length, 1 + ATRIUM / length


def echogenicity(
    heart: Heart, u: np.ndarray, v: np.ndarray, opening: float, coarse: int
) -> np.ndarray:
    """Return the amplitude (d, b) that the tissue at material points ``u``, ``v`` scatters with."""
    _, _, right, apex, length, width, wall, floor, _ = sides(heart, coarse)
    side_u = np.where(right, -u, u - SEPTUM)  # distance from the inner face of the septum
    s = (v - apex) / length
    ventricle = s <= 1
    lower = np.clip((s - 1) / (floor - 1), 0, 1)
    atrium = np.full(u.shape, 0.92)
    atrium[~ventricle] = np.sqrt(np.clip(1 - lower[~ventricle] ** 2.5, 0, 1)) * 0.92
    reach = width * np.where(ventricle, _profile(s), atrium)
    # The wall is as thick on the apex as beside it: compare with the profile grown by the wall.
    grown_s = (v - apex + wall) / (length + wall)
    grown = (width + wall) * np.where(ventricle, _profile(grown_s), atrium + 0.02)
    inside = (side_u > 0) & (side_u < reach) & (s > 0) & (s < floor)
    muscle = (side_u >= 0) & (side_u < grown) & (grown_s > 0) & (s < floor + 0.05) & ~inside
    septum = (u >= 0) & (u <= SEPTUM) & (v > -LV_WALL) & (v < heart.lv_length + ATRIUM)
    thin_septum = septum & (v > heart.lv_length + 0.4) & (np.abs(u - SEPTUM / 2) > 0.2)
    echo = np.full(u.shape, ECHO["tissue"], np.float32)
    echo[muscle & right] = ECHO["rv"]
    echo[muscle & ~right] = ECHO["lv"]
    echo[muscle & ~ventricle] *= 0.7
    echo[septum] = ECHO["lv"]
    echo[inside | thin_septum] = ECHO["blood"]
    leaflets = _leaflets(heart, opening)
    ends = [end for leaflet in leaflets for _, end in leaflet]
    margin = 2 * VALVE_HALF_THICKNESS
    near = (v > min(ends) - margin) & (v < max(ends) + margin)  # few pixels: no leaflet is farther
    near_u, near_v, near_echo = u[near], v[near], echo[near]
    for hinge, tip in leaflets:
        near_echo[_distance(near_u, near_v, hinge, tip) < VALVE_HALF_THICKNESS] = ECHO["valve"]
    echo[near] = near_echo
    corner_u, corner_v = -heart.rv_width, RV_APEX + RV_LENGTH
    near = np.abs(v - corner_v) < 2 * HINGE_RADIUS
    near_echo = echo[near]
    near_echo[np.hypot(u[near] - corner_u, v[near] - corner_v) < HINGE_RADIUS] = ECHO["hinge"]
    echo[near] = near_echo
    return echo


def _leaflets(heart, opening):
    """Return the (hinge, tip) pairs of both valves; closed leaflets meet in the valve plane."""
    pairs = []
    for near, far, base in (
        (0.0, -heart.rv_width, RV_APEX + RV_LENGTH),
        (SEPTUM, SEPTUM + heart.lv_diameter, heart.lv_length),
    ):
        for hinge, other in ((near, far), (far, near)):
            half = (other - hinge) / 2
            angle = np.deg2rad(CLOSED_DEG + SWING_DEG * opening)
            tip = hinge + half * float(np.cos(angle)), base - abs(half) * float(np.sin(angle))
            pairs.append(((hinge, base), tip))
    return pairs


def _distance(u, v, start, end):
    """Return the distance of points to the segment from ``start`` to ``end``."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / (du**2 + dv**2), 0, 1)
    return np.sqrt((u - start[0] - along * du) ** 2 + (v - start[1] - along * dv) ** 2)


@functools.lru_cache(maxsize=4)
def screen(rows: int, cols: int, depth_cm: float = DEPTH_CM) -> tuple:
    """Return the geometry of the picture that shows ``depth_cm``.

    Returns:
        map_beam, map_depth: (r, c) float32, polar indices of each pixel.
        inside: (r, c) bool, pixels of the sector.
        pixel_cm, apex_row, apex_col: scale and position of the probe.
    """
    width = 2 * depth_cm * np.sin(np.deg2rad(HALF_ANGLE_DEG))
    pixel_cm = max(depth_cm / (0.94 * rows), width / (0.94 * cols))
    apex_row, apex_col = 0.03 * rows, (cols - 1) / 2
    z = (np.arange(rows)[:, None] - apex_row) * pixel_cm
    x = (np.arange(cols)[None] - apex_col) * pixel_cm
    depth, angle = np.hypot(x, z), np.rad2deg(np.arctan2(x, z))
    d, b = (n // coarseness(rows) for n in (N_DEPTHS, N_BEAMS))
    map_depth = (depth / depth_cm * d - 0.5).astype(np.float32)
    map_beam = ((angle + HALF_ANGLE_DEG) / (2 * HALF_ANGLE_DEG) * (b - 1)).astype(np.float32)
    inside = (depth <= depth_cm) & (np.abs(angle) <= HALF_ANGLE_DEG) & (depth > 0.3)
    return map_beam, map_depth, inside, pixel_cm, apex_row, apex_col


def to_pixels(
    x: np.ndarray, z: np.ndarray, rows: int, cols: int, depth_cm: float = DEPTH_CM
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, columns) of image coordinates in cm."""
    *_, pixel_cm, apex_row, apex_col = screen(rows, cols, depth_cm)
    return np.asarray(z) / pixel_cm + apex_row, np.asarray(x) / pixel_cm + apex_col


def draw_movie(
    heart: Heart,
    n_frames: int,
    rows: int,
    cols: int,
    rng: np.random.Generator,
    *,
    burnt_in: bool = True,
) -> np.ndarray:
    """Return the movie (n, r, c) uint8 of a heart, with a scale and a word outside the fan.

    Args:
        rng: numpy Generator of the scatterers and the noise.
        burnt_in: draw the scale and the word SYNTHETIC.
    """
    coarse = coarseness(rows)
    per_cm = FIELD_PER_CM // coarse
    size = int(2 * FIELD_HALF_CM * per_cm)
    # Smooth enough for the polar grid to follow it; scaled back to unit power.
    field = rng.standard_normal((size, size, 2), dtype=np.float32)
    field = cv2.GaussianBlur(field, (0, 0), FIELD_SIGMA) * np.float32(
        2 * np.sqrt(np.pi) * FIELD_SIGMA
    )
    *_, depth = polar_grid(coarse, heart.depth_cm)
    loss = np.exp(-LOSS_PER_CM * depth)[..., None]
    map_beam, map_depth, inside, *_ = screen(rows, cols, heart.depth_cm)
    kept, fresh = np.sqrt(1 - FRESH_POWER), np.sqrt(FRESH_POWER)
    movie = np.empty((n_frames, rows, cols), np.uint8)
    overlay = burnt_in_overlay(rows, cols, heart.depth_cm) if burnt_in else np.uint8(0)
    for k in range(n_frames):
        u, v = material_points(heart, float(heart.contraction(k)), coarse)
        echo = echogenicity(heart, u, v, float(heart.opening(k)), coarse)
        map_u = ((u - heart.centre_u + FIELD_HALF_CM) * per_cm).astype(np.float32)
        map_v = ((v - heart.lv_length / 2 + FIELD_HALF_CM) * per_cm).astype(np.float32)
        speckle = cv2.remap(field, map_u, map_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        noise = rng.standard_normal(speckle.shape, dtype=np.float32)
        echoes = (kept * speckle + fresh * noise) * echo[..., None] * loss  # (d, b, 2)
        blurred = cv2.GaussianBlur(echoes, (0, 0), sigmaX=PSF_BEAMS, sigmaY=PSF_DEPTH)
        envelope = np.hypot(blurred[..., 0], blurred[..., 1])
        level = 20 * np.log10(np.maximum(envelope, 1e-6) / REFERENCE) + heart.gain_db
        grey = np.clip(1 + level / RANGE_DB, 0, 1).astype(np.float32) * 255
        picture = cv2.remap(grey, map_beam, map_depth, cv2.INTER_LINEAR)
        movie[k] = np.where(inside, np.round(picture).astype(np.uint8), overlay)
    return movie


@functools.lru_cache(maxsize=4)
def burnt_in_overlay(rows: int, cols: int, depth_cm: float = DEPTH_CM) -> np.ndarray:
    """Return the text and depth scale (r, c) uint8 that lie outside the sector."""
    *_, pixel_cm, apex_row, _ = screen(rows, cols, depth_cm)
    overlay = np.zeros((rows, cols), np.uint8)
    scale = rows / 600
    cv2.putText(
        overlay,
        "SYNTHETIC",
        (int(12 * scale), int(36 * scale)),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.9 * scale,
        200,
        max(1, round(2 * scale)),
        cv2.LINE_AA,
    )
    for cm in range(0, int(depth_cm) + 1):
        row = round(apex_row + cm / pixel_cm)
        length = int((14 if cm % 5 == 0 else 7) * scale)
        if row < rows:
            overlay[row, cols - 4 - length : cols - 4] = 180
    return overlay
