"""The data of the task randomwalks: random walks on a random graph, made from a seed."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import Field, model_validator

from mht.data.sources.base import Source, source
from mht.tasks.randomwalks.graph import make_graph, random_walks


@source("randomwalks")
class RandomWalks(Source):
    """Random walks on a random directed graph towards node 0, as texts: ``7 12 3 0``.

    Attributes:
        nodes: number of nodes of the graph; their names are 0, 1, ..., and 0 is the goal.
        walks: number of walks.
        max_length: maximum number of nodes in a walk, which ends earlier at the goal.
        edge_probability: of each ordered pair of nodes. The graph is drawn again until every node
            reaches the goal in fewer than ``max_length`` nodes.
        graph_seed: of graph and walks; independent of the training seed.
    """

    nodes: Annotated[int, Field(ge=2, le=500)] = 21
    walks: Annotated[int, Field(gt=0)] = 1000
    max_length: Annotated[int, Field(ge=3)] = 10
    edge_probability: Annotated[float, Field(gt=0, le=1)] = 0.1
    graph_seed: Annotated[int, Field(ge=0, lt=2**32)] = 1000

    @model_validator(mode="after")
    def _there_is_a_graph(self) -> RandomWalks:
        make_graph(self.nodes, self.edge_probability, self.max_length, self.graph_seed)
        return self

    def rows(self) -> list[dict[str, Any]]:
        """``{"text", "item": {"graph"}}`` for each walk; ``graph`` is the id of the graph."""
        graph = make_graph(self.nodes, self.edge_probability, self.max_length, self.graph_seed)
        return [{"text": text, "item": {"graph": graph.id}} for text in self._texts()]

    def _texts(self) -> list[str]:
        walks = random_walks(
            self.walks,
            nodes=self.nodes,
            edge_probability=self.edge_probability,
            max_length=self.max_length,
            seed=self.graph_seed,
        )
        return [" ".join(map(str, walk)) for walk in walks]

    def asset(self) -> dict[str, Any]:
        """The entry of ``assets.json``."""
        return {
            "name": "randomwalks",
            "version": f"graph_seed {self.graph_seed}",
            "sha256": hashlib.sha256("\n".join(self._texts()).encode()).hexdigest(),
            "licence": "none needed",
            "source": "made here from its seed, after Chen et al. 2021, arXiv:2106.01345",
        }
