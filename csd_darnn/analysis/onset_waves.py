"""Which rises of single cells make up a wave, and whether there is one at all.

Rises of neighbours that follow each other closely form a group. A group is a wave when a front that
runs away from one point explains its arrivals, over many blocks of the field, better than in
surrogates: the same record with each block of cells shifted in time. A lamp (no front: all at
once), noise and slow fluctuations (no two blocks that agree) are none.

Letters: E events, n cells of a group.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from analysis.onset_front import MAD_OF_NORMAL, Front, fit_front
from analysis.onset_traces import Events, Grid
from settings import OnsetSettings

LEAST_CELLS = 10  # fewer give no speed
BLOCKS = 6  # blocks of the field along its longer side
LEAST_BLOCKS = 8  # a front has four numbers: it explains any few blocks
LEAST_EXPLAINED = 0.5  # R2 over blocks, corrected for those four numbers
NEAR_CELLS = 2  # cells that far apart may follow each other
RECRUITS = 3  # rounds in which weaker rises near the front are taken in
NEAR_FRONT = 5.0  # robust standard deviations that a weaker rise may lie off the front
SLOWEST_MM_MIN = 1.0  # slower than any depression: how long the next cell may take
MOST_SURROGATE_CELLS = 2500
MOST_GROUPS = 5  # of one record, the largest are looked at


@dataclass(frozen=True)
class Wave:
    """One wave, or the group of rises that came nearest to being one.

    Attributes:
        events: its Events, one a cell.
        times: (n,) arrivals on an even clock, in frames.
        front: fitted Front, None where the arrivals have none.
        n_blocks: blocks of the field that it reaches.
        explained: R2 of the front, corrected for the number of blocks.
        p_value: share of surrogates with as much in it, None when they were not needed.
        reason: why it is no wave, "" when it is one.
        travel: delay of the beginning of the rise per delay of its half, see onset_shape.py.
    """

    events: Events
    times: np.ndarray
    front: Front | None
    n_blocks: int
    explained: float
    p_value: float | None
    reason: str
    travel: float | None = None


@dataclass(frozen=True)
class Field:
    """Cells as the grouping sees them.

    Attributes:
        places: (K, 2) row and column of the cells in widths of a pixel.
        block: (K,) block of the field that a cell belongs to.
        spacing: width of a cell in widths of a pixel.
        patience: frames that a neighbour may be later.
        n_frames: length of the record on the even clock, in frames.
        resolution: length of the moving average in frames.
    """

    places: np.ndarray
    block: np.ndarray
    spacing: float
    patience: float
    n_frames: float
    resolution: float


def make_field(
    grid: Grid, row_ratio: float, patience: float, n_frames: float, resolution: float
) -> Field:
    """Return the Field of a Grid; ``row_ratio`` is the height of a pixel over its width."""
    rows, columns = grid.places()
    places = np.column_stack((rows * row_ratio, columns))
    spacing = max(grid.cell[0] * row_ratio, grid.cell[1])
    side = max(2 * spacing, (np.ptp(places, axis=0).max() + spacing) / BLOCKS)
    down, across = ((places - places.min(axis=0)) // side).astype(int).T
    return Field(
        places, down * (across.max() + 1) + across, spacing, patience, n_frames, resolution
    )


def group_events(field: Field, cell: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """Return index arrays of events that follow each other from cell to cell, largest first."""
    if not len(cell):
        return []
    near = NEAR_CELLS * field.spacing * 1.01
    points = np.column_stack((field.places[cell] / near, times / field.patience))
    pairs = cKDTree(points).query_pairs(1.0, p=np.inf, output_type="ndarray")
    size = len(cell)
    links = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(size, size))
    _, names = connected_components(links, directed=False)
    order = np.argsort(names, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(names))[:-1])
    return sorted(groups, key=len, reverse=True)


def best_of_each_cell(cell: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the index of the highest event of every cell."""
    order = np.lexsort((-score, cell))
    return order[np.unique(cell[order], return_index=True)[1]]


def quick_explained(places: np.ndarray, times: np.ndarray) -> float:
    """Return the R2 of the arrivals on a bent plane: near to a front, and quickly fitted."""
    near = places - places.mean(axis=0)
    design = np.column_stack((np.ones(len(near)), near, (near**2).sum(axis=1)))
    late = times - times.mean()
    whole = (late**2).sum()
    if whole <= 0:
        return 0.0
    miss = late - design @ np.linalg.lstsq(design, late, rcond=None)[0]
    return float(1 - (miss**2).sum() / whole)


def evidence(field: Field, cell: np.ndarray, times: np.ndarray) -> float:
    """Return the cells of the best group times the share of their arrivals that is explained."""
    best = 0.0
    for group in group_events(field, cell, times)[:3]:
        if len(group) >= LEAST_CELLS:
            part = quick_explained(field.places[cell[group]], times[group])
            best = max(best, len(group) * part)
    return best


def surrogate_evidence(
    field: Field, events: Events, times: np.ndarray, recipe: OnsetSettings
) -> tuple[Iterator[float], Field, np.ndarray]:
    """Return the evidence of records whose blocks are shifted in time, and the thinned cells.

    A shift leaves everything inside a block as it is: noise, fluctuations, small events.
    """
    thin = int(np.ceil(np.sqrt(len(np.unique(events.cell)) / MOST_SURROGATE_CELLS)))
    rows, columns = (np.unique(field.places[:, axis], return_inverse=True)[1] for axis in (0, 1))
    kept = np.flatnonzero(((rows % thin == 0) & (columns % thin == 0))[events.cell])
    thinned = replace(field, spacing=field.spacing * thin)
    random = np.random.default_rng([recipe.seed, 11])
    names = field.block.max() + 1

    def draws():
        for _ in range(recipe.surrogates):
            shift = random.uniform(0, field.n_frames, names)
            moved = (times[kept] + shift[field.block[events.cell[kept]]]) % field.n_frames
            yield evidence(thinned, events.cell[kept], moved)

    return draws(), thinned, kept


def corrected(explained: float, n_blocks: int) -> float:
    """Return R2 corrected for the four numbers of a front fitted to ``n_blocks`` blocks."""
    return 1 - (1 - explained) * (n_blocks - 1) / (n_blocks - 4) if n_blocks > 4 else 0.0


def look_at(field: Field, events: Events, times: np.ndarray, group: np.ndarray) -> Wave:
    """Return the Wave that a group of events is, with the reason why it is none, if so."""
    group = group[best_of_each_cell(events.cell[group], events.score[group])]
    own, late = events.take(group), times[group]
    n_blocks = len(np.unique(field.block[own.cell]))
    all_blocks = len(np.unique(field.block))
    front = fit_front(field.places[own.cell], late) if len(group) >= LEAST_CELLS else None
    explained = corrected(front.explained, n_blocks) if front else 0.0
    reason = ""
    if len(group) < LEAST_CELLS:
        reason = f"{len(group)} pixels rise one after the other, at least {LEAST_CELLS} are needed"
    elif n_blocks < min(LEAST_BLOCKS, all_blocks):
        reason = (
            f"the largest group of pixels that rise one after the other reaches {n_blocks} of"
            f" {all_blocks} blocks of the field, at least {LEAST_BLOCKS} are needed"
        )
    elif front is None:
        reason = "the arrivals do not grow with the distance from any point"
    elif front.transit < field.resolution:
        reason = (
            f"all {len(group)} pixels rise within {front.transit:.3g} frames, the moving average"
            f" takes {field.resolution:.3g}: light, or a front too fast for this average"
            " (--smooth_s, --hold_s)"
        )
    elif explained < LEAST_EXPLAINED:
        reason = (
            f"distance from an origin explains {max(0, explained):.2f} of the arrivals of"
            f" {len(group)} pixels, expected at least {LEAST_EXPLAINED:g}"
        )
    return Wave(own, late, front, n_blocks, explained, None, reason)


def recruit(field: Field, events: Events, times: np.ndarray, wave: Wave) -> Wave:
    """Return the wave with the weaker rises that lie on its front, one a cell, and fitted again.

    A cell that only a fluctuation lifts above the threshold is early or late by that fluctuation;
    without the weaker cells such cells would turn the front.
    """
    own, late, front = wave.events, wave.times, wave.front
    for _ in range(RECRUITS):
        reach = max(NEAR_FRONT * MAD_OF_NORMAL * front.residual, field.resolution)
        off = np.abs(times - front.times(field.places[events.cell]))
        near = np.flatnonzero(off <= min(reach, field.patience))
        near = near[best_of_each_cell(events.cell[near], -off[near])]
        fitted = fit_front(field.places[events.cell[near]], times[near])
        if fitted is None or len(near) < len(wave.times) / 2:
            break
        own, late, front = events.take(near), times[near], fitted
    return replace(wave, events=own, times=late, front=front)


def find_waves(
    field: Field, events: Events, times: np.ndarray, recipe: OnsetSettings
) -> tuple[list[Wave], str]:
    """Return the waves of a record in the order of their times, and why there is none.

    Args:
        events: rises of any height; those of ``recipe.least_score`` make a wave, weaker ones join.
        times: (E,) arrivals of the events on an even clock, in frames.
    """
    all_events, all_times = events, times
    strong = events.score >= recipe.least_score
    events, times = events.take(strong), times[strong]
    groups = group_events(field, events.cell, times)[:MOST_GROUPS]
    looked = [look_at(field, events, times, group) for group in groups]
    waves = [wave for wave in looked if not wave.reason]
    if not waves:
        if not looked:
            return [], "no pixel rises above the fluctuations of the record"
        return [], looked[0].reason
    drawn, thinned, kept = surrogate_evidence(field, events, times, recipe)
    drawn = np.sort(np.fromiter(drawn, float))
    tested, reasons = [], []
    for wave in waves:
        mine = np.isin(wave.events.cell, events.cell[kept])
        own = evidence(thinned, wave.events.cell[mine], wave.times[mine])
        p_value = (1 + int((drawn >= own).sum())) / (1 + len(drawn)) if len(drawn) else None
        if p_value is None or p_value <= recipe.error_rate:
            tested.append(recruit(field, all_events, all_times, replace(wave, p_value=p_value)))
        else:
            reasons.append(
                f"{int((drawn >= own).sum())} of {len(drawn)} surrogates (blocks of the field"
                f" shifted in time) hold as much: p {p_value:.2g}, expected at most"
                f" {recipe.error_rate:g}"
            )
    tested.sort(key=lambda wave: np.median(wave.times))
    return tested, "" if tested else reasons[0]
