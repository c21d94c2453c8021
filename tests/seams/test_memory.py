"""A memory from an installed package, named in params.yaml, in the real pipeline."""

import pytest

from mht.config.memory import MemoryConfig
from mht.core.component import build
from mht.core.errors import ConfigError
from tests.support.plugins import Toy

pytest_plugins = ["tests.support.plugins"]

NEWEST = '''
from mht.core.component import Section
from mht.memory import Memory


class Options(Section):
    most: int = 8


class Newest(Memory):
    """Practises again what it practised last."""

    Options = Options

    def choose(self, n, generator):
        last = self.records["last"][self.known]
        prompts = self.known[(-last).argsort(kind="stable")]
        return self.rows.first[prompts[: min(n, self.options.most)]].tolist()

    def statistics(self):
        return super().statistics() | {"most": float(self.options.most)}

    def report(self, tables, plots):
        (tables / "newest.txt").write_text(f"{len(self.known)} prompts")
'''


TOY = Toy(
    "acme_newest",
    NEWEST,
    {"memory": {"newest": "Newest"}},
    row={"memory": {"type": "newest", "newest": {"most": 3}}},
)


def test_a_memory_from_outside_runs_in_the_pipeline(toy_rows):
    last = toy_rows.curve("acme_newest", "ppo")[-1]
    assert last["ppo/memory/most"] == 3 and last["ppo/memory/responses"] == 16
    folder = toy_rows.path / "models/acme_newest"
    assert (folder / "newest.txt").read_text().endswith(" prompts")
    assert (folder / "memory.parquet").is_file()


def test_its_options_are_checked_like_any_others(site):
    memory = build(MemoryConfig, {"type": "newest"})
    assert memory.options == {"most": 8} and not memory.groups_prompts
    with pytest.raises(ConfigError) as caught:
        build(MemoryConfig, {"type": "newst", "newest": {"mots": 1}}, path="ppo.memory")
    assert [problem.partition(". ")[0] for problem in caught.value.problems] == [
        "ppo.memory.newest.mots: no such option 'mots' (did you mean 'most'?)",
        "ppo.memory.type: unknown memory 'newst' (did you mean 'newest'?)",
    ]
