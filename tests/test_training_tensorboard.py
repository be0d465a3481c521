"""TensorBoard shows every step of a killed run once, and loses none that was logged."""

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_toys import QUIET, at_step, config_of

from als.training import train as training
from als.training.train import train

OPTIONS = QUIET | {"log_every_n_steps": 1}

pytestmark = pytest.mark.usefixtures("no_warnings")


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard draws: (step, value) of every curve."""
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


# With a step to do again, and killed before anything was saved.
@pytest.mark.parametrize(("stop_at", "save_every"), [(5, 2), (2, 100)])
def test_a_killed_run_draws_the_curves_of_a_whole_one(
    toy, tmp_path, monkeypatch, stop_at, save_every
):
    seen = []

    def power_cut():
        seen.extend(step for step, _ in scalars(tmp_path / "killed")["loss"])
        raise KeyError("power cut")

    train(config_of(toy, tmp_path / "whole", epochs=2), **OPTIONS)
    monkeypatch.setattr(training, "SAVE_EVERY_STEPS", save_every)
    config = config_of(toy, tmp_path / "killed", epochs=2)
    with monkeypatch.context() as patch:
        at_step(stop_at, power_cut, patch)
        with pytest.raises(KeyError, match="power cut"):
            train(config, **OPTIONS)
    assert seen == list(range(stop_at)), "a kill would have lost what was logged"
    time.sleep(1.1)  # event files are read in the order of the second in their names
    train(config, resume=True, **OPTIONS)
    whole = scalars(tmp_path / "whole")
    assert [step for step, _ in whole["loss"]] == list(range(6)) and "lr" in whole
    assert scalars(tmp_path / "killed") == whole
