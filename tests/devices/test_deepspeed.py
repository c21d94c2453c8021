"""DeepSpeed makes the steps of one process, and what can't be had under it is refused by name.

What needs deepspeed is skipped where it is not installed.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mht.config import load_config
from mht.config.deepspeed import WHOLE, setting_problems
from mht.core.errors import ConfigError, MissingPackage
from mht.devices.zero import _check_kind, _spare_idle
from mht.models.loading import load_causal_lm
from mht.pipeline import launch
from tests.support import devices_worker as worker
from tests.support.devices import same_figures, stage_clone, train_stage

pytest_plugins = ["tests.support.devices"]
ROOT = Path(__file__).parents[2]
RUNS = {
    "all": {},
    "all_killed": {},
    # norms and biases have a group of their own; the lower layers are shared with the reference
    "top": {
        "unfrozen": 1,
        "optimizer": {
            "type": "adamw", "eps": 1e-4, "weight_decay": 0.1, "decay_norms_and_biases": False,
        },
    },
    "micro": {
        "microbatch_size": 1, "minibatch_size": 8, "epochs": 4, "target_kl": 1e-9, "ent_coef": 0.01,
        "optimizer": {"type": "nadam", "eps": 1e-4},  # with numbers in its state
    },
    "branch": {"value_head": {"type": "branch", "num_layers": 1}},
    "ridge": {"unfrozen": 1, "value_head": {"type": "ridge", "shrinkage": 20.0}},
}  # fmt: skip
ERRORS = {"kind": {"optimizer": {"type": "adafactor"}}}


@pytest.fixture(scope="module", params=[1, 2], ids=["zero1", "zero2"])
def two(request, tmp_path_factory, tiny_model_dir):
    """What two processes made of all the runs under a stage of ZeRO."""
    pytest.importorskip("deepspeed")
    job = {"model": str(tiny_model_dir("gpt2")), "out": str(tmp_path_factory.mktemp("two"))}
    env = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(request.param),
        "TORCH_EXTENSIONS_DIR": str(tmp_path_factory.mktemp("extensions")),
    }
    worker.run_in_two({**job, "runs": RUNS, "errors": ERRORS}, **env)
    return SimpleNamespace(job=job, out=Path(job["out"]))


def weights_of(two, run, rank=0):
    return load_file(two.out / f"{run}-{rank}.safetensors")


@pytest.fixture(scope="module")
def one(tiny_model_dir):
    """The same runs in this process: the trainer after it, and its figures."""
    job = {"model": str(tiny_model_dir("gpt2"))}
    return {run: worker.train(job, **RUNS[run]) for run in RUNS if run != "all_killed"}


@pytest.mark.parametrize("run", ["all", "top", "micro", "branch", "ridge"])
def test_two_processes_make_the_steps_of_one(two, one, run):
    trainer, figures = one[run]
    ours = worker.weights(trainer)
    torch.testing.assert_close(weights_of(two, run), ours, atol=1e-5, rtol=0)
    same_figures(json.loads((two.out / f"{run}-0.json").read_text()), figures)
    begun = worker.weights(worker.trainer_of(two.job, **RUNS[run]))
    assert max((ours[k] - begun[k]).abs().max() for k in ours) > 1e-3


@pytest.mark.parametrize("run", RUNS)
def test_the_processes_stay_alike(two, run):
    first, second = weights_of(two, run, 0), weights_of(two, run, 1)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_run_goes_on_bitwise_and_is_saved(two):
    whole, resumed = weights_of(two, "all"), weights_of(two, "all_killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    for name, value in load_causal_lm(two.out / "saved").named_parameters():
        torch.testing.assert_close(value.detach(), whole[name], atol=0, rtol=0)


def test_mistakes_end_every_process(two):
    main, other = (json.loads((two.out / f"errors-{r}.json").read_text()) for r in (0, 1))
    assert main["reward"] == ["UserError", "reward (broken): the service is down"]
    assert other["reward"][0] == "Elsewhere"
    assert main["ratio"] == other["ratio"] and main["ratio"][0] == "RatioError"
    assert "optimizer.type: under DeepSpeed set adamw: adafactor looks at" in main["kind"][1]
    assert main["frozen"] is None, "frozen layers are no matter here"


@pytest.mark.slow
def test_a_stage_under_deepspeed_writes_what_it_writes_on_one(tmp_path, tiny_model_dir):
    """With deepspeed's own exchange between processes on a CPU, which is compiled first."""
    pytest.importorskip("deepspeed")
    clone = stage_clone(tmp_path, tiny_model_dir)
    folder = clone.path / "configs" / "accelerate"
    four = (folder / "deepspeed.yaml").read_text()
    (folder / "two.yaml").write_text(four.replace("num_processes: 4", "num_processes: 2"))
    made = [train_stage(clone, file) for file in (None, "configs/accelerate/two.yaml")]
    torch.testing.assert_close(*made, atol=1e-5, rtol=0)


# -- where there is no deepspeed --------------------------------------------------------------


CONFIG = load_config(ROOT / "params.yaml")


def refused(path, config=CONFIG):
    with pytest.raises(ConfigError) as caught:
        launch.processes(path, config)
    return caught.value.problems


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("mht.pipeline.launch.find_spec", lambda package: None)
    path = "configs/accelerate/deepspeed.yaml"
    with pytest.raises(MissingPackage) as caught:
        launch.processes(path, CONFIG)
    needed = f"base.accelerate: {path}: distributed_type DEEPSPEED"
    assert str(caught.value) == f"{needed} needs the package 'deepspeed': pip install deepspeed"


def test_settings_that_can_not_be_had(accelerate_files):
    told = {
        "zero_stage": 3,
        "offload_optimizer_device": "cpu",
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 1.0,
        "deepspeed_config_file": "ds.json",
    }
    path = accelerate_files(distributed_type="DEEPSPEED", deepspeed_config=told)
    problems = refused(path)
    start = f"base.accelerate: {path}: deepspeed_config."
    assert [p.removeprefix(start).split(":")[0] for p in problems] == [
        f"{name} {value!r}" for name, value in told.items()
    ]
    assert "set 1 or 2; FSDP shares out the weights (fsdp.yaml)" in problems[0]
    assert setting_problems({"zero_stage": 2, "offload_param_device": "none"}) == []


def test_models_and_optimisers_that_can_not_be_had(accelerate_files):
    optimizer = CONFIG.ppo.optimizer.model_copy(update={"type": "adafactor"})
    changes = {
        "model": CONFIG.model.model_copy(update={"dtype": "bfloat16"}),
        "ppo": CONFIG.ppo.model_copy(update={"optimizer": optimizer, "heads": {"length": {}}}),
    }
    config = CONFIG.model_copy(update=changes)
    path = accelerate_files(distributed_type="DEEPSPEED", deepspeed_config={"zero_stage": 1})
    dtype, heads, kind = refused(path, config)
    assert dtype.startswith("model.dtype: under DeepSpeed set float32")
    assert heads.startswith("ppo.heads: under DeepSpeed leave them out")
    assert kind.startswith("ppo.optimizer.type: under DeepSpeed set adamw: adafactor looks at")


@pytest.mark.parametrize("kind", ["adafactor", "adagrad"])
def test_an_optimiser_that_looks_at_whole_parameters_is_refused(kind):
    from mht.optim.optimizers import make_optimizer

    weight = torch.nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ConfigError, match=WHOLE[kind]):
        _check_kind(make_optimizer([weight], {"type": kind}))
    _check_kind(make_optimizer([weight], {"type": "adamw"}))


def test_what_had_no_gradient_is_left_alone():
    """DeepSpeed's gradient of zero would let Adam's momentum move a value head in SFT."""
    idle, busy = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = torch.optim.AdamW(
        [{"params": [idle], "idle": True}, {"params": [busy], "idle": False}], weight_decay=0.1
    )
    optimizer.register_step_pre_hook(_spare_idle)
    idle.grad, busy.grad = torch.zeros(3), torch.zeros(3)
    optimizer.step()
    assert idle.tolist() == [1, 1, 1] and idle not in optimizer.state
    assert max(busy.tolist()) < 1
