"""`mht ui`: where MLflow is opened, and for whom."""

from subprocess import CompletedProcess

import pytest
from typer.testing import CliRunner

from mht.cli.main import commands
from mht.cli.project.pipelines import experiment_of, pipeline_at
from mht.core.errors import UserError
from mht.tracking.store import open_store, tracking_uri

pytest_plugins = ["tests.support.tracking"]


def test_it_opens_on_the_runs_and_only_for_this_machine(project, monkeypatch):
    missing = CliRunner().invoke(commands, ["ui"])
    assert isinstance(missing.exception, UserError) and "run `dvc repro` first" in str(
        missing.exception
    )
    number = open_store(experiment_of(pipeline_at(None).params)).experiment_id
    started = []
    monkeypatch.setattr(
        "mht.cli.project.ui.subprocess.run",
        lambda command, **_: started.append(command) or CompletedProcess(command, 0),
    )
    done = CliRunner().invoke(commands, ["ui", "--port", "5057"])
    assert done.exit_code == 0, done.output
    url = f"http://127.0.0.1:5057/#/experiments/{number}/runs?workflowType=machine_learning"
    assert url in done.stdout
    (command,) = started
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1] == tracking_uri()


@pytest.mark.parametrize("name", ["mlflow.experimentKind", "mlflow.note.content"])
def test_the_experiment_says_what_it_is(project, name):
    store = open_store("mine")
    assert store.client.get_experiment(store.experiment_id).tags[name]
