"""Shortest paths on a random directed graph: the toy task known as randomwalks.

A walk goes from node to node along directed edges until it is at the goal. The task is that of the
Decision Transformer's illustration (Chen et al. 2021, section 2 of arXiv:2106.01345), in the form
that trlX made known (Havrilla et al. 2023, aclanthology.org/2023.emnlp-main.530): with the same
seed the graph and the walks are those of its example, unless that graph has a node from which the
goal is out of reach, which is drawn anew here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import RandomState

GOAL = 0
MOST_DRAWS = 2000  # with 21 nodes and edge probability .1 about one draw in 30 will do

Edges = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Graph:
    """A directed graph in which every node reaches the goal.

    Attributes:
        edges: for each node those that it leads to, in order; the goal leads to itself alone.
        shortest: for each node how many nodes its shortest path to the goal has, both ends counted.
    """

    edges: Edges
    shortest: tuple[int, ...]

    @property
    def id(self) -> str:
        """12 hex digits of the sha256 of its edges."""
        return hashlib.sha256(repr(self.edges).encode()).hexdigest()[:12]


@lru_cache(maxsize=16)
def make_graph(nodes: int, edge_probability: float, max_length: int, seed: int) -> Graph:
    """The graph that a seed decides; the same on every machine (numpy's frozen RandomState).

    Each ordered pair of different nodes is an edge with ``edge_probability``. The whole graph is
    drawn again until every node, the goal included, has an edge that leads away, and, with the
    goal's own edges then replaced by one to itself, every other node reaches the goal by a path of
    fewer than ``max_length`` nodes.

    Args:
        nodes: their number; node 0 is the goal.
        edge_probability: of each ordered pair.
        max_length: most nodes of a walk.
        seed: of the draw.

    Raises:
        ValueError: no such graph in 2,000 draws.
    """
    return _draw_graph(_random(seed), nodes, edge_probability, max_length)


def random_walks(
    count: int, *, nodes: int, edge_probability: float, max_length: int, seed: int
) -> list[list[int]]:
    """Walks on the graph of that seed, drawn after it from the same stream.

    Each starts at a node other than the goal, all alike, and follows one of its node's edges, all
    alike, until it is at the goal or has ``max_length`` nodes.

    Args:
        count: how many.
        nodes: see `make_graph`.
        edge_probability: see `make_graph`.
        max_length: most nodes of a walk, the start included.
        seed: of graph and walks.
    """
    random = _random(seed)
    graph = _draw_graph(random, nodes, edge_probability, max_length)
    return [_walk(graph, max_length, random) for _ in range(count)]


def optimality(path: Sequence[int], graph: Graph, max_length: int) -> float:
    """How near a walk is to the best one from its start, in [0, 1].

    ``(max_length - n) / (max_length - shortest)`` with n the number of nodes up to the goal, both
    ends counted; 1.0 is a shortest path. 0.0 for a step that is no edge, a node that there is not,
    or a goal that is not reached in fewer than ``max_length`` nodes. What follows the goal does
    not count.

    >>> line = Graph(edges=((0,), (0,), (1, 0), (2,)), shortest=(1, 2, 2, 3))
    >>> [optimality(path, line, 10) for path in ([2, 0], [2, 1, 0], [2, 3, 2, 0], [2, 1])]
    [1.0, 0.875, 0.0, 0.0]
    """
    length = max_length
    for place, node in enumerate(path):
        if not 0 <= node < len(graph.edges):
            break
        if place and node not in graph.edges[path[place - 1]]:
            break
        if node == GOAL:
            length = min(place + 1, max_length)
            break
    if length == max_length:
        return 0.0
    return (max_length - length) / (max_length - graph.shortest[path[0]])


def _random(seed: int) -> RandomState:
    from numpy.random import RandomState

    return RandomState(seed)


def _draw_graph(random: RandomState, nodes: int, edge_probability: float, max_length: int) -> Graph:
    for _ in range(MOST_DRAWS):
        drawn = random.rand(nodes, nodes) > 1 - edge_probability
        drawn[range(nodes), range(nodes)] = False
        if not drawn.any(axis=1).all():
            continue
        rows = [tuple(to for to in range(nodes) if row[to]) for row in drawn.tolist()]
        rows[GOAL] = (GOAL,)
        shortest = _shortest(rows)
        if all(0 < length < max_length for length in shortest):
            return Graph(tuple(rows), tuple(shortest))
    raise ValueError(
        f"no graph of {nodes} nodes whose every node reaches the goal in fewer than {max_length} "
        f"nodes came up in {MOST_DRAWS} draws: raise edge_probability ({edge_probability:g}) or "
        "max_length"
    )


def _shortest(edges: Sequence[Sequence[int]]) -> list[int]:
    """Nodes on the shortest path from each node to the goal; 0 where there is none."""
    found = [0] * len(edges)
    found[GOAL], reached, length = 1, {GOAL}, 1
    while reached:
        length += 1
        reached = {
            node
            for node, leads_to in enumerate(edges)
            if not found[node] and not reached.isdisjoint(leads_to)
        }
        for node in reached:
            found[node] = length
    return found


def _walk(graph: Graph, max_length: int, random: RandomState) -> list[int]:
    start = GOAL
    while start == GOAL:
        start = int(random.randint(len(graph.edges)))
    walk = [start]
    while walk[-1] != GOAL and len(walk) < max_length:
        leads_to = graph.edges[walk[-1]]
        walk.append(leads_to[random.randint(len(leads_to))])
    return walk
