"""The task randomwalks: the graph, its walks, the score, and the data source that gives them."""

from itertools import pairwise

import numpy as np
import pytest

from mht.core.component import build
from mht.core.errors import ConfigError, DataError
from mht.data.sources import Source
from mht.data.text.sample import Sample
from mht.rewards import make_reward
from mht.tasks.randomwalks.graph import GOAL, Graph, make_graph, optimality, random_walks

USUAL = {"nodes": 21, "edge_probability": 0.1, "max_length": 10}
LINE = Graph(edges=((0,), (0,), (1, 0), (2,)), shortest=(1, 2, 2, 3))


def known_generator(seed, nodes=21, p=0.1, max_length=10, count=200):
    """The published construction, line by line; without the condition on reachability."""
    random = np.random.RandomState(seed)
    while True:
        edges = random.rand(nodes, nodes) > 1 - p
        np.fill_diagonal(edges, False)
        if edges.any(axis=1).all():
            break
    edges[0, :] = False
    edges[0, 0] = True
    walks = []
    for _ in range(count):
        node = 0
        while node == 0:
            node = int(random.randint(nodes))
        walk = [node]
        while len(walk) < max_length and node != 0:
            node = int(random.choice(np.flatnonzero(edges[node])))
            walk.append(node)
        walks.append(walk)
    return edges, walks


@pytest.mark.parametrize("seed", [1000, 1002])
def test_graph_and_walks_are_those_of_the_known_example(seed):
    edges, walks = known_generator(seed)
    graph = make_graph(**USUAL, seed=seed)
    assert graph.edges == tuple(tuple(np.flatnonzero(row).tolist()) for row in edges)
    assert random_walks(200, **USUAL, seed=seed) == walks


@pytest.mark.parametrize("seed", range(6))
def test_every_node_reaches_the_goal_and_the_lengths_are_the_shortest(seed):
    graph = make_graph(**USUAL, seed=seed)
    matrix = np.zeros((21, 21), bool)
    for node, leads_to in enumerate(graph.edges):
        matrix[node, list(leads_to)] = True
    assert graph.edges[GOAL] == (GOAL,)
    assert not matrix.diagonal()[1:].any()
    reached = np.arange(21) == GOAL  # by paths of so many nodes
    for nodes in range(1, 10):
        for node in np.flatnonzero(reached):
            assert graph.shortest[node] <= nodes
        assert {n for n in range(21) if graph.shortest[n] == nodes} <= set(np.flatnonzero(reached))
        reached = reached | matrix[:, reached].any(axis=1)
    assert max(graph.shortest) < 10


def test_the_edges_have_the_probability():
    edges = [
        sum(map(len, make_graph(60, 0.2, 10, seed).edges[1:])) / (59 * 59) for seed in range(20)
    ]
    assert np.mean(edges) == pytest.approx(0.2, abs=0.01)


def test_walks_follow_edges_and_end_at_the_goal_or_at_the_limit():
    graph = make_graph(**USUAL, seed=3)
    walks = random_walks(300, **USUAL, seed=3)
    for walk in walks:
        assert walk[0] != GOAL and GOAL not in walk[:-1]
        assert all(b in graph.edges[a] for a, b in pairwise(walk))
        assert walk[-1] == GOAL or len(walk) == 10
        assert 0.0 <= optimality(walk, graph, 10) <= 1.0
    assert {walk[0] for walk in walks} == set(range(1, 21))


@pytest.mark.parametrize(
    ("path", "score"),
    [
        ([3, 2, 0], 1.0),  # (10 - 3) / (10 - 3)
        ([3, 2, 1, 0], 6 / 7),
        ([2, 0, 3, 3], 1.0),  # what follows the goal does not count
        ([3, 2], 0.0),  # not there
        ([3, 1, 0], 0.0),  # 3 does not lead to 1
        ([3, 2, -1, 0], 0.0),  # no node
        ([7, 0], 0.0),
        ([], 0.0),
    ],
)
def test_optimality_by_hand(path, score):
    assert optimality(path, LINE, 10) == pytest.approx(score)


def test_a_walk_of_the_full_length_scores_nothing_even_at_the_goal():
    assert optimality([3, 2, 1, 0], LINE, 4) == 0.0
    assert optimality([3, 2, 1, 0], LINE, 5) == pytest.approx(1 / 2)


def test_settings_without_a_graph_say_what_to_change():
    with pytest.raises(ConfigError, match=r"data\.source: none of 2000 .* raise edge_prob"):
        build(Source, {"type": "randomwalks", "edge_probability": 0.001}, path="data.source")
    with pytest.raises(ConfigError, match=r"ppo\.reward: none of 2000 .* or max_length"):
        make_reward({"type": "randomwalks", "edge_probability": 0.001}, path="ppo.reward")


# The source.


def test_the_source_gives_texts_that_name_their_graph_byte_for_byte():
    source = build(Source, {"type": "randomwalks", "graph_seed": 1002})
    rows = source.rows()
    assert len(rows) == 1000 and rows == source.rows()
    first = random_walks(1, **USUAL, seed=1002)[0]
    assert rows[0]["text"] == " ".join(map(str, first))
    assert {row["item"]["graph"] for row in rows} == {make_graph(**USUAL, seed=1002).id}
    # as it was when first written: numpy promises this stream
    assert source.asset()["sha256"][:16] == "44e2192f9222d545"
    other = build(Source, {"type": "randomwalks", "graph_seed": 1003})
    assert other.rows()[0]["item"] != rows[0]["item"]


# The reward.


def test_the_reward_scores_prompt_and_response_as_one_walk():
    reward = make_reward({"type": "randomwalks", "graph_seed": 1000})
    graph = make_graph(**USUAL, seed=1000)
    item = {"graph": graph.id}
    best = [next(n for n in range(1, 21) if graph.shortest[n] == 4)]
    while best[-1] != GOAL:
        best.append(min(graph.edges[best[-1]], key=lambda n: graph.shortest[n]))
    start, rest = str(best[0]), " " + " ".join(map(str, best[1:]))
    samples = [Sample(start, rest, "", item), Sample(start, "", "", item)]
    samples += [Sample(start, rest + " nowhere", "", item), Sample(start, " nowhere", "", item)]
    assert reward.evaluate(samples).score == [1.0, 0.0, 1.0, 0.0]
    assert reward(f"{start}{rest}") == 1.0
    assert reward("") == reward("no node") == 0.0


@pytest.mark.parametrize("sample", [Sample("3", " 0", "", {"graph": "x"}), Sample("the", " 0")])
def test_prompts_of_another_graph_stop_the_run(sample):
    reward = make_reward({"type": "randomwalks", "on_error": 0.0})
    with pytest.raises(DataError, match=r"not of this reward's graph: give nodes"):
        reward.evaluate([sample])


def test_the_reward_in_a_tree():
    tree = {"type": "weighted_sum", "components": {"way": {"type": "randomwalks"}}}
    scored = make_reward(tree).evaluate([Sample("1", "")])
    assert scored.components["reward.way"] == [0.0]
