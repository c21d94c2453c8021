"""Shortest paths on a random directed graph: the toy task randomwalks.

A walk follows directed edges from node to node until it reaches the goal. The Decision Transformer
introduced the task (Chen et al. 2021, section 2 of arXiv:2106.01345). trlX made this form of it
popular (Havrilla et al. 2023, aclanthology.org/2023.emnlp-main.530). The same seed gives the graph
and the walks of trlX's example, with one exception. Where a node of that graph can't reach the
goal, the graph is drawn again here.
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
MOST_DRAWS = 2000  # with 21 nodes and edge probability 0.1 about one draw in 30 is accepted

Edges = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Graph:
    """A directed graph in which every node reaches the goal.

    Attributes:
        edges: for each node the nodes that its edges lead to, in order; the goal leads only to
            itself.
        shortest: for each node the number of nodes on its shortest path to the goal, both ends
            counted.
    """

    edges: Edges
    shortest: tuple[int, ...]

    @property
    def id(self) -> str:
        """12 hex digits of the sha256 of its edges."""
        return hashlib.sha256(repr(self.edges).encode()).hexdigest()[:12]


@lru_cache(maxsize=16)
def make_graph(nodes: int, edge_probability: float, max_length: int, seed: int) -> Graph:
    """The graph of a seed; the same on every machine (numpy's frozen RandomState).

    Each ordered pair of different nodes is an edge with ``edge_probability``. A draw is accepted if
    every node, the goal included, has an outgoing edge. The goal's edges are then replaced by one
    to itself. Every other node must reach the goal by a path of fewer than ``max_length`` nodes. A
    rejected graph is drawn again as a whole.

    Args:
        nodes: number of nodes; node 0 is the goal.
        edge_probability: of each ordered pair.
        max_length: maximum number of nodes in a walk.
        seed: of the draw.

    Raises:
        ValueError: none of 2,000 draws was accepted.
    """
    return _draw_graph(_random(seed), nodes, edge_probability, max_length)


def random_walks(
    count: int, *, nodes: int, edge_probability: float, max_length: int, seed: int
) -> list[list[int]]:
    """Walks on the graph of a seed, drawn after the graph from the same random stream.

    A walk starts at a uniformly drawn node other than the goal. It follows uniformly drawn edges
    until it reaches the goal or has ``max_length`` nodes.

    Args:
        count: number of walks.
        nodes: see `make_graph`.
        edge_probability: see `make_graph`.
        max_length: maximum number of nodes in a walk, the start included.
        seed: of graph and walks.
    """
    random = _random(seed)
    graph = _draw_graph(random, nodes, edge_probability, max_length)
    return [_walk(graph, max_length, random) for _ in range(count)]


def optimality(path: Sequence[int], graph: Graph, max_length: int) -> float:
    """The optimality of a walk in [0, 1]; 1.0 is a shortest path from its start.

    ``(max_length - n) / (max_length - shortest)`` with n the number of nodes up to the goal, both
    ends counted. It is 0.0 for a step that is no edge, a node that does not exist, or a goal not
    reached in fewer than ``max_length`` nodes. Nodes after the goal are ignored.

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
        f"none of {MOST_DRAWS} graphs of {nodes} nodes has paths of fewer than {max_length} nodes "
        f"from all nodes to the goal: raise edge_probability ({edge_probability:g}) or "
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
