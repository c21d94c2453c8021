"""The picture of the structure is the code's, and no arrow in it points up."""

import re

import networkx
import pytest

from tools import structure
from tools.structure import imports, main, picture


@pytest.fixture(scope="module")
def graph():
    return imports("mht")


def places(text: str) -> dict[str, float]:
    """The height of each package in a picture, from the top."""
    found = re.findall(r'<text x="[^"]*" y="([^"]*)">(\w+)</text>', text)
    return {name: float(y) for y, name in found}


def test_the_picture_is_up_to_date():
    assert main(["--check"]) == 0, f"run {structure.COMMAND}"


def test_no_arrow_points_up(graph):
    height = places(picture(graph))
    assert height.keys() == set(graph.nodes)
    assert graph.number_of_edges() > len(height)
    assert not [(a, b) for a, b in graph.edges if height[a] >= height[b]]


def test_a_circle_is_refused(graph):
    circle = networkx.DiGraph([("core", "data"), ("data", "core")])
    with pytest.raises(networkx.NetworkXError):
        picture(circle)


def test_implied_arrows_are_left_out():
    text = picture(networkx.DiGraph([("a", "b"), ("b", "c"), ("a", "c")]))
    assert text.count("<path") == 2
