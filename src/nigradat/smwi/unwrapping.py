"""Phase unwrapping along the most trustworthy path between any two voxels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nigradat.errors import ImageError
from nigradat.volume import Float32

_TAU = np.float32(2 * np.pi)


def wrap(phase: Float32) -> Float32:
    """Into -pi..pi."""
    turns: Float32 = np.round(phase / _TAU)
    return phase - _TAU * turns


def unwrap(phase: Float32, mask: npt.NDArray[np.bool_], magnitude: Float32) -> Float32:
    """Add the multiples of 2 pi that a phase lost.

    Neighbours are compared along the minimum spanning tree of the mask, so that any two voxels are joined by the path
    whose worst step is as good as can be. This is what growing a region from its best border does (ROMEO, Dymerska et
    al. 2021), with two of its measures of a step: how far the wrapped difference is from pi, and how alike the two
    magnitudes are. The differences along the tree are then added up for all voxels at once, by doubling the length of
    the path in each round.

    The result is exact where neighbours on the tree differ by less than pi. Each connected part of the mask keeps a
    free multiple of 2 pi, chosen so that its median lies within pi of that of the largest part, whose own lies within
    -pi..pi.

    Args:
        phase: ``(X, Y, Z)``, radians, wrapped.
        mask: where to unwrap.
        magnitude: ``(X, Y, Z)``, not negative, any unit.

    Returns:
        ``(X, Y, Z)``; equal to ``phase`` but for multiples of 2 pi in the mask, 0 outside it.

    Raises:
        ImageError: an empty mask, or shapes that differ.
    """
    if not phase.shape == mask.shape == magnitude.shape:
        raise ImageError(f"phase {phase.shape}, mask {mask.shape}, magnitude {magnitude.shape}", "one shape")
    if not mask.any():
        raise ImageError("an empty mask", "at least one voxel")
    values = phase[mask]
    start, end, cost = _steps(phase, mask, magnitude)
    parent, part = _spanning_tree(len(values), start, end, cost)
    del start, end, cost
    turns = np.round((values[parent] - values) / _TAU).astype(np.int32)
    while True:  # turns[i] counts along the path from i to parent[i], which doubles each round
        further = parent[parent]
        if np.array_equal(further, parent):
            break
        turns += turns[parent]
        parent = further
    values = values + _TAU * turns
    values -= _TAU * _turns_of_parts(values, part)[part]
    out = np.zeros(phase.shape, dtype=np.float32)
    out[mask] = values
    return out


def _steps(
    phase: Float32, mask: npt.NDArray[np.bool_], magnitude: Float32
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Float32]:
    """All steps between neighbours in the mask: from, to (positions among the mask's voxels) and cost, 1 to 2."""
    number = np.full(mask.shape, -1, dtype=np.int32)
    number[mask] = np.arange(np.count_nonzero(mask), dtype=np.int32)
    starts, ends, costs = [], [], []
    for axis in range(3):
        here: list[slice] = [slice(None)] * 3
        there: list[slice] = [slice(None)] * 3
        here[axis], there[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(here), tuple(there)
        both = mask[a] & mask[b]
        starts.append(number[a][both])
        ends.append(number[b][both])
        smooth = 1 - np.abs(wrap(phase[b][both] - phase[a][both])) / np.float32(np.pi)
        m, n = magnitude[a][both], magnitude[b][both]
        larger = np.maximum(m, n)
        alike = np.divide(np.minimum(m, n), larger, out=np.zeros_like(larger), where=larger > 0)
        # csgraph takes 0 for "no edge", so the best step costs 1
        costs.append(2 - smooth * (np.float32(0.5) + np.float32(0.5) * alike))
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(costs)


def _spanning_tree(
    n: int, start: npt.NDArray[np.int32], end: npt.NDArray[np.int32], cost: Float32
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Each voxel's parent in the minimum spanning forest, a root its own, and the number of its tree."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

    graph = coo_array((cost, (start, end)), shape=(n, n)).tocsr()
    tree = minimum_spanning_tree(graph, overwrite=True).tocsr()
    del graph
    _, part = connected_components(tree, directed=False)
    parent = np.arange(n, dtype=np.int32)
    # a hub in front of all trees lets one walk reach them
    _, roots = np.unique(part, return_index=True)
    if len(roots) == 1:
        before = breadth_first_order(tree, 0, directed=False)[1]
    else:
        edges = tree.tocoo()
        row = np.concatenate([edges.row, np.full(len(roots), n)])
        column = np.concatenate([edges.col, roots])
        hubbed = coo_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=(n + 1, n + 1)).tocsr()
        before = breadth_first_order(hubbed, n, directed=False)[1][:n]
    known = (before >= 0) & (before < n)
    parent[known] = before[known]
    return parent, part


def _turns_of_parts(values: Float32, part: npt.NDArray[np.int32]) -> Float32:
    """Multiples of 2 pi by which each part lies too high."""
    order = np.argsort(part, kind="stable")
    sizes = np.bincount(part)
    medians = np.array([np.median(v) for v in np.split(values[order], np.cumsum(sizes)[:-1])], dtype=np.float32)
    largest = medians[np.argmax(sizes)]
    level = largest - _TAU * np.round(largest / _TAU)
    turns: Float32 = np.round((medians - level) / _TAU).astype(np.float32)
    return turns
