"""A memory from an installed package, named in params.yaml, in the real pipeline."""

import csv

import pytest

from mht.config.memory import MemoryConfig
from mht.core.component import build
from mht.core.errors import ConfigError
from tests.support.plugins import install, on_path

pytest_plugins = ["tests.support.pipeline"]

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


@pytest.fixture
def site(tmp_path):
    return install(tmp_path / "site", "acme_newest", NEWEST, {"memory": {"newest": "Newest"}})


def test_a_memory_from_outside_runs_in_the_pipeline(clone, site):
    clone.set_params({"ppo.memory": {"type": "newest", "newest": {"most": 3}}})
    clone.dvc("repro", "ppo@hybrid", PYTHONPATH=on_path(site))
    rows = list(csv.DictReader((clone.path / "plots/hybrid/ppo.csv").open()))
    assert float(rows[-1]["ppo/memory/most"]) == 3
    assert float(rows[-1]["ppo/memory/responses"]) == 16
    assert (clone.path / "models/hybrid/newest.txt").read_text().endswith(" prompts")
    assert (clone.path / "models/hybrid/memory.parquet").is_file()


def test_its_options_are_checked_like_any_others(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    memory = build(MemoryConfig, {"type": "newest"})
    assert memory.options == {"most": 8} and not memory.groups_prompts
    with pytest.raises(ConfigError) as caught:
        build(MemoryConfig, {"type": "newst", "newest": {"mots": 1}}, path="ppo.memory")
    assert [problem.partition(". ")[0] for problem in caught.value.problems] == [
        "ppo.memory.newest.mots: no such option 'mots' (did you mean 'most'?)",
        "ppo.memory.type: unknown memory 'newst' (did you mean 'newest'?)",
    ]
