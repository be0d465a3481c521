"""The script for SLURM, with stand-ins for SLURM's own commands."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "configs" / "slurm.sbatch"
SLURM = {"SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "77"}


@pytest.mark.parametrize(("status", "queued_again"), [(143, True), (0, False), (2, False)])
def test_only_a_run_that_sigterm_ended_is_queued_again(tmp_path, status, queued_again):
    for name, last in (("srun", f"exit {status}"), ("scontrol", "")):
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\nprintf '%s\\n' {name} \"$@\" >> {tmp_path}/calls\n{last}\n")
        command.chmod(0o755)
    given = ["configs/a.yaml", "--data.root", "/data/VOC devkit"]
    done = subprocess.run(
        ["bash", str(SCRIPT), *given], env=SLURM | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert done.returncode == status
    expected = ["srun", "--kill-on-bad-exit=1", "als", "train", *given, "--resume"]
    expected += ["--trainer.strategy", "ddp", "--trainer.devices", "4", "--trainer.num_nodes", "2"]
    expected += ["scontrol", "requeue", "77"] if queued_again else []
    assert (tmp_path / "calls").read_text().splitlines() == expected
