"""Where the figures of a run go by `trainer.logger`; what is said where a package is missing."""

import json
import sys

import pytest
from lightning.pytorch.loggers import mlflow, wandb
from training_toys import QUIET, config_of

from als.cli import main
from als.errors import InputError
from als.training.train import train

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_csv_leaves_metrics_csv_alone(toy, tmp_path):
    train(config_of(toy, tmp_path, epochs=1), **QUIET, log_every_n_steps=1, logger="csv")
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 and lines[0].startswith("step,")
    assert not list(tmp_path.rglob("events.out*")) and not (tmp_path / "tensorboard").exists()
    assert json.loads((tmp_path / "config.json").read_text())["trainer"]["logger"] == "csv"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_told_in_a_sentence(name, toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    module, flag = {"wandb": (wandb, "_WANDB_AVAILABLE"), "mlflow": (mlflow, "_MLFLOW_AVAILABLE")}[
        name
    ]
    monkeypatch.setattr(module, flag, False)
    with pytest.raises(InputError, match=rf"trainer\.logger {name}: it needs `pip install {name}`"):
        train(config_of(toy, tmp_path / "run", epochs=1), **QUIET, logger=name)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_logger_that_there_is_not_is_an_error(toy, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", f"--out={tmp_path}", "--trainer.logger=neptune"])
    assert "neptune is none of" in capsys.readouterr().err


def test_each_training_is_a_run_of_its_own_to_wandb(toy, tmp_path, monkeypatch):
    """Also the second one of a process, as in a notebook or over seeds."""
    package = pytest.importorskip("wandb", reason="needs the package wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("first", "second"):
        config = config_of(toy, tmp_path / name, epochs=1)
        train(config, **QUIET, log_every_n_steps=1, logger="wandb")
        assert package.run is None
        (file,) = (tmp_path / name).glob("wandb/offline-run-*/run-*.wandb")
        told = file.read_bytes()
        assert name.encode() in told and b"lambda_att" in told and b"loss_rpn" in told


def test_mlflow_gets_figures_and_options(toy, tmp_path, monkeypatch):
    """A run's own database, by the folder's name."""
    tracking = pytest.importorskip("mlflow", reason="needs the package mlflow").tracking
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no databases")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "run"
    config = config_of(toy, out, epochs=1)
    train(config, **QUIET, log_every_n_steps=1, logger="mlflow")
    client = tracking.MlflowClient(f"sqlite:///{out}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("als").experiment_id])
    assert run.info.run_name == "run" and run.data.params["seed"] == "0"
    assert [one.step for one in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2]
