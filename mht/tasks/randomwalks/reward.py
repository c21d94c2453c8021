"""The reward of the task randomwalks: the optimality of a walk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from mht.core.errors import DataError
from mht.data.text.sample import Sample
from mht.rewards.base import UNIT, Range, Reward, reward
from mht.tasks.randomwalks.graph import Graph, make_graph, optimality


@reward("randomwalks")
class RandomWalks(Reward):
    """Optimality of the walk that prompt and response make, in [0, 1]; 1.0 is a shortest path.

    ``(max_length - n) / (max_length - shortest)`` with n nodes up to the goal 0. It is 0.0 for a
    step that is no edge, and for a goal not reached in fewer than ``max_length`` nodes. The task is
    that of Chen et al. 2021 (arXiv:2106.01345).

    Attributes:
        nodes: as in the source.
        max_length: as in the source.
        edge_probability: as in the source.
        graph_seed: as in the source.
    """

    family: ClassVar[str] = "task"
    needs: ClassVar[str] = "the source randomwalks, with the same options"
    score_range: ClassVar[Range] = UNIT

    nodes: Annotated[int, Field(ge=2, le=500)] = 21
    max_length: Annotated[int, Field(ge=3)] = 10
    edge_probability: Annotated[float, Field(gt=0, le=1)] = 0.1
    graph_seed: Annotated[int, Field(ge=0, lt=2**32)] = 1000

    @model_validator(mode="after")
    def _there_is_a_graph(self) -> RandomWalks:
        self._graph()
        return self

    def _graph(self) -> Graph:
        return make_graph(self.nodes, self.edge_probability, self.max_length, self.graph_seed)

    def reads(self, sample: Sample) -> tuple[str, ...] | None:
        """The walk and the id of its graph."""
        return sample.full, str(sample.item.get("graph"))

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The optimality of each walk."""
        graph = self._graph()
        return [optimality(self._path(sample, graph), graph, self.max_length) for sample in samples]

    def _path(self, sample: Sample, graph: Graph) -> list[int]:
        """The nodes of the walk; -1 for a word that is no node.

        Raises:
            DataError: the prompt belongs to another graph.
        """
        names = {str(node): node for node in range(self.nodes)}
        path = [names.get(word, -1) for word in sample.full.split()]
        unknown = bool(sample.prompt.strip()) and path[0] < 0
        if unknown or sample.item.get("graph", graph.id) != graph.id:
            problem = (
                f"the prompt {sample.prompt!r:.40} is not of this reward's graph: give nodes, "
                "max_length, edge_probability and graph_seed the values of data.source"
            )
            raise DataError(problem)
        return path
