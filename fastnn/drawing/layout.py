"""Layers of a directed graph: where its boxes go, one rank below the other, and how the edges run between them.

After Sugiyama, Tagawa & Toda 1981, "Methods for visual understanding of hierarchical system structures": ranks by the
longest path; edges that pass ranks by get a place in each, so that they run around boxes; the order within ranks
has few crossings (barycentres). Coordinates come last: one longest path, the trunk, is straight, everything else lies
beside it as near as it can, and what belongs together is straight as well (blocks, as in Brandes & Koepf 2002).

"Across" is along a rank, "along" goes from rank to rank.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

#: Between neighbours in a rank; edges that pass boxes by are as wide as this.
APART = 22.0
WIRE = 8.0
#: Beside a box for an edge to itself.
LOOP = 26.0
#: Between ranks: at least, and so much more where edges go far across.
GAP, SLOPE, STEEPEST = 26.0, 0.12, 60.0
#: Between the ends of edges at one side of a box.
PORTS = 16.0
#: Rounds of crossing reduction, and of moving blocks towards what they are joined with.
ROUNDS = 12
#: With more pieces of edges than this their order is left as it was found.
LARGE = 20_000

Edge = tuple[int, int]
Point = tuple[float, float]


class Layout(NamedTuple):
    """Where everything is.

    Attributes:
        centres: (across, along) of each box
        lines: for each edge its points from start to end: straight lines from points 0, 2, 4 ... to 1, 3, 5 ..., curves
            between; empty for an edge from a box to itself
        size: (across, along) of the whole; nothing is below 0
    """

    centres: list[Point]
    lines: list[list[Point]]
    size: Point


class _Graph:
    """Boxes and, beyond them, the places of edges in ranks that they pass; all with neighbours in the next ranks.

    Attributes:
        boxes: number of boxes; what has a number from there on is a place of an edge
        rank, width: of each
        up, down: neighbours of each
        chains: for each edge what it runs through, from the upper to the lower end; empty for a loop
    """

    def __init__(self, widths: Sequence[float], edges: Sequence[Edge]) -> None:
        self.boxes = len(widths)
        self.rank = _ranks(self.boxes, edges)
        self.width = list(widths)
        self.chains: list[list[int]] = []
        for start, end in edges:
            upper, lower = min(start, end), max(start, end)
            chain = [upper]
            for rank in range(self.rank[upper] + 1, self.rank[lower]):
                chain.append(len(self.rank))
                self.rank.append(rank)
                self.width.append(WIRE)
            self.chains.append([] if start == end else [*chain, lower])
        self.up: list[list[int]] = [[] for _ in self.rank]
        self.down: list[list[int]] = [[] for _ in self.rank]
        for chain in self.chains:
            for a, b in pairwise(chain):
                self.down[a].append(b)
                self.up[b].append(a)


def arrange(sizes: Sequence[Point], edges: Sequence[Edge]) -> Layout:
    """Lay out boxes of these sizes (across, along).

    Edges are pairs of numbers of boxes, which are in an order in which most edges go forward; the others run back.

    >>> layout = arrange([(40, 20), (40, 20), (40, 20)], [(0, 1), (1, 2), (0, 2)])
    >>> [x for x, _ in layout.centres], len(layout.lines[2])
    ([20.0, 20.0, 20.0], 6)
    """
    loops = {start for start, end in edges if start == end}
    graph = _Graph([across + 2 * LOOP * (box in loops) for box, (across, _) in enumerate(sizes)], edges)
    x = _across(graph, _order(graph))
    bands, length = _bands(graph, x, [along for _, along in sizes])
    ports = _ports(graph, x, [across / 2 for across, _ in sizes])
    lines = []
    for number, ((start, end), chain) in enumerate(zip(edges, graph.chains, strict=True)):
        points: list[Point] = []
        for node in chain:
            top, bottom = bands[graph.rank[node]]
            across = x[node]
            if node < graph.boxes:
                half = sizes[node][1] / 2
                across += ports[number, node]
                inner = (top + bottom) / 2 + (half if node == chain[0] else -half)
                top, bottom = (inner, bottom) if node == chain[0] else (top, inner)
            points += [(across, top), (across, bottom)]
        lines.append(points if start <= end else points[::-1])
    left = min((across - width / 2 for across, width in zip(x, graph.width, strict=True)), default=0.0)
    right = max((across + width / 2 for across, width in zip(x, graph.width, strict=True)), default=0.0)
    return Layout(
        [(x[box] - left, sum(bands[graph.rank[box]]) / 2) for box in range(graph.boxes)],
        [[(across - left, along) for across, along in points] for points in lines],
        (right - left, length),
    )


def _ranks(boxes: int, edges: Sequence[Edge]) -> list[int]:
    """The length of the longest path to each box; what leads from an entry to where it is needed starts late."""
    before: list[list[int]] = [[] for _ in range(boxes)]
    after: list[list[int]] = [[] for _ in range(boxes)]
    for start, end in edges:
        if start != end:
            before[max(start, end)].append(min(start, end))
            after[min(start, end)].append(max(start, end))
    rank: list[int] = []
    own: list[bool] = []  # whether nothing else hangs on what leads there
    for box in range(boxes):
        rank.append(max((rank[b] + 1 for b in before[box]), default=0))
        own.append(all(own[b] and len(after[b]) == 1 for b in before[box]))
    for box in reversed(range(boxes)):
        if own[box] and after[box]:
            rank[box] = min(rank[b] for b in after[box]) - 1
    return rank


def _order(graph: _Graph) -> list[list[int]]:
    """What is in each rank, from one side to the other, with few crossings."""
    ranks: list[list[int]] = [[] for _ in range(max(graph.rank, default=-1) + 1)]
    seen: set[int] = set()
    for root in sorted(range(graph.boxes), key=lambda box: bool(graph.up[box])):
        waiting = [root]
        while waiting:  # depth first: what hangs together lies together
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                ranks[graph.rank[node]].append(node)
                waiting += reversed(graph.down[node])
    best, fewest = ranks, _crossings(graph, ranks)
    if sum(map(len, graph.down)) > LARGE:
        return best
    for number in range(ROUNDS):
        if not fewest:
            break
        near = graph.up if number % 2 == 0 else graph.down
        place: dict[int, float] = {}
        found = [list(rank) for rank in ranks]
        for rank in found if number % 2 == 0 else reversed(found):
            own = {node: float(position) for position, node in enumerate(rank)}
            middle = {
                node: sum(place[n] for n in near[node]) / len(near[node]) if near[node] else own[node] for node in rank
            }
            rank.sort(key=lambda node, middle=middle: middle[node])  # type: ignore[misc]
            place |= {node: float(position) for position, node in enumerate(rank)}
        ranks, crossings = found, _crossings(graph, found)
        if crossings < fewest:
            best, fewest = ranks, crossings
    return best


def _crossings(graph: _Graph, ranks: Sequence[Sequence[int]]) -> int:
    """How many pairs of edges cross."""
    total = 0
    for upper, lower in pairwise(ranks):
        place = {node: position for position, node in enumerate(lower)}
        ends: list[int] = []
        for node in upper:
            new = sorted(place[n] for n in graph.down[node])
            total += sum(len(ends) - bisect(ends, end) for end in new)
            ends = sorted(ends + new)
    return total


def _trunk(graph: _Graph) -> list[int]:
    """A path of boxes through all ranks, from the last rank to the first."""
    led: set[int] = set()  # from the first rank
    for box in range(graph.boxes):
        if graph.rank[box] == 0 or not led.isdisjoint(graph.up[box]):
            led.add(box)
    last = max(graph.rank)
    path = [next(box for box in sorted(led) if graph.rank[box] == last)]
    while graph.up[path[-1]]:
        path.append(next(node for node in graph.up[path[-1]] if node in led))
    return path


def _across(graph: _Graph, order: Sequence[Sequence[int]]) -> list[float]:
    """Each one's place across: the trunk at 0, the others beside it."""
    if not graph.boxes:
        return []
    trunk = _trunk(graph)
    block = _blocks(graph, order, set(zip(trunk[1:], trunk, strict=False)))
    middle = block[trunk[0]]
    left: dict[int, dict[int, float]] = {number: {} for number in block}
    right: dict[int, dict[int, float]] = {number: {} for number in block}
    for rank in order:
        for a, b in pairwise(rank):
            i, j, wide = block[a], block[b], (graph.width[a] + graph.width[b]) / 2 + APART
            if wide > left[j].get(i, 0.0):
                left[j][i] = right[i][j] = wide
    sorted_blocks = _sorted(left)
    x: dict[int, float] = {middle: 0.0}
    for number in sorted_blocks:  # to the right of the trunk, as far left as there is room
        if any(n in x for n in left[number]):
            x[number] = max(x[n] + wide for n, wide in left[number].items())
    for number in reversed(sorted_blocks):
        if number not in x:
            x[number] = min((x[n] - wide for n, wide in right[number].items()), default=0.0)
    _draw_near(graph, block, middle, (left, right), x)
    return [x[number] for number in block]


def _blocks(graph: _Graph, order: Sequence[Sequence[int]], trunk: set[Edge]) -> list[int]:
    """For each the first of the block that it is in: blocks are what is drawn straight, and do not cross."""
    place = {node: position for rank in order for position, node in enumerate(rank)}

    def urgency(edge: Edge) -> tuple[int, int, int]:
        kind = 0 if edge in trunk else 1 if min(edge) >= graph.boxes else 2 if max(edge) < graph.boxes else 3
        return kind, graph.rank[edge[0]], place[edge[0]]

    taken: dict[int, list[Edge]] = {}
    above: dict[int, int] = {}
    led: set[int] = set()
    pieces = {(node, n) for node, below in enumerate(graph.down) for n in below}
    for a, b in sorted(pieces, key=urgency):
        known = taken.setdefault(graph.rank[a], [])
        here = (place[a], place[b])
        index = bisect(known, here)
        crosses = (index > 0 and known[index - 1][1] >= here[1]) or (index < len(known) and known[index][1] <= here[1])
        if a not in led and b not in above and not crosses:
            above[b] = a
            led.add(a)
            known.insert(index, here)
    block = list(range(len(graph.rank)))
    for rank in order:
        for node in rank:
            if node in above:
                block[node] = block[above[node]]
    return block


def _sorted(before: dict[int, dict[int, float]]) -> list[int]:
    """The blocks, each after those to its left."""
    found: dict[int, None] = {}
    for start in before:
        waiting = [start]
        while waiting:
            missing = [n for n in before[waiting[-1]] if n not in found]
            if missing:
                waiting += missing
            else:
                found[waiting.pop()] = None
    return list(found)


def _draw_near(
    graph: _Graph,
    block: Sequence[int],
    middle: int,
    beside: tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]],
    x: dict[int, float],
) -> None:
    """Move blocks, within the room that they have, to the median of what they are joined with."""
    left, right = beside
    joined: dict[int, list[int]] = {number: [] for number in x}
    for a, below in enumerate(graph.down):
        for b in below:
            if block[a] != block[b]:
                joined[block[a]].append(block[b])
                joined[block[b]].append(block[a])
    for _ in range(ROUNDS):
        for number, others in joined.items():
            if number == middle or not others:
                continue
            places = sorted(x[n] for n in others)
            wanted = (places[(len(places) - 1) // 2] + places[len(places) // 2]) / 2
            low = max((x[n] + wide for n, wide in left[number].items()), default=-inf)
            high = min((x[n] - wide for n, wide in right[number].items()), default=inf)
            x[number] = max(low, min(high, wanted))


def _bands(graph: _Graph, x: Sequence[float], lengths: Sequence[float]) -> tuple[list[Point], float]:
    """Where each rank begins and ends, and where the last one does."""
    count = max(graph.rank, default=-1) + 1
    thick, far = [0.0] * count, [0.0] * count
    for box, length in enumerate(lengths):
        thick[graph.rank[box]] = max(thick[graph.rank[box]], length)
    for a, below in enumerate(graph.down):
        for b in below:
            far[graph.rank[a]] = max(far[graph.rank[a]], abs(x[a] - x[b]))
    bands, at = [], 0.0
    for length, distance in zip(thick, far, strict=True):
        bands.append((at, at + length))
        at += length + GAP + min(SLOPE * distance, STEEPEST)
    return bands, bands[-1][1] if bands else 0.0


def _ports(graph: _Graph, x: Sequence[float], halves: Sequence[float]) -> dict[Edge, float]:
    """For each edge's number and each of its boxes: how far from the middle of its side the edge ends."""
    ends: dict[tuple[int, bool], list[tuple[float, int]]] = {}
    for number, chain in enumerate(graph.chains):
        if chain:
            ends.setdefault((chain[0], True), []).append((x[chain[1]], number))
            ends.setdefault((chain[-1], False), []).append((x[chain[-2]], number))
    ports = {}
    for (box, _), found in ends.items():
        found.sort()
        straight = [index for index, (across, _) in enumerate(found) if across == x[box]]
        centre = straight[0] if straight else (len(found) - 1) / 2
        room = halves[box] * 0.8
        step = min(PORTS, room / max(centre, len(found) - 1 - centre, 1))
        for index, (_, number) in enumerate(found):
            ports[number, box] = (index - centre) * step
    return ports
