"""What params.yaml may not ask for under DeepSpeed."""

from mht.config import load_config
from mht.config.deepspeed import config_problems


def test_several_training_seeds_are_refused():
    config = load_config("params.yaml")
    assert config_problems(config) == []
    several = config.base.model_copy(update={"seeds": 2})
    (problem,) = config_problems(config.model_copy(update={"base": several}))
    assert problem == "base.seeds: under DeepSpeed set 1: its engine is made once in a process"
