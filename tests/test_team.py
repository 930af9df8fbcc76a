"""Two processes train what one does: the same batches, the same losses, and one of them writes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from toys import toy_checkpoint

from xlmr_course import finetuning
from xlmr_course.fitting import Settings
from xlmr_course.team import Team

LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "xlmr_course", "finetune",
]  # fmt: skip


def test_a_single_process_is_a_team_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = Team.here("cpu")
    model = torch.nn.Linear(2, 2)
    assert (team.device, team.rank, team.size, team.main) == ("cpu", 0, 1, True)
    assert team.join(model) is model
    assert team.gather(3) == [3]
    assert team.agreed("x") == "x"
    with team.main_first(), team.silent(model, until=False):
        pass


@pytest.mark.parametrize("device", ["gpu", "cuda:9", "cuda:x"])
def test_a_device_that_is_not_here_is_named(device):
    with pytest.raises(ValueError, match=rf"device='{device}' is (unknown|not here)"):
        Team.here(device)


def start(arguments):
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [*LAUNCH, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
@pytest.mark.skipif(sys.platform == "win32", reason="gloo between processes is tested on Linux and macOS")
def test_two_processes_give_the_losses_of_one_also_after_a_kill(own_corpus, tmp_path):
    """Without dropout, which each process draws for itself. Batches of 5 cannot be shared evenly, nor can 12 by 5."""
    checkpoint = toy_checkpoint(tmp_path / "toy", dropout=0.0)
    settings = Settings(epochs=30, batch_size=5, learning_rate=1e-3, accumulate=2, patience=None)
    alone = finetuning.finetune("topics", checkpoint, data=own_corpus, settings=settings, device="cpu", seeds=(0, 1))
    arguments = [
        "--checkpoint", checkpoint, "--data", own_corpus, "--seeds", "0,1", "--epochs", 30, "--patience", 0,
        "--batch-size", 5, "--learning-rate", 1e-3, "--accumulate", 2, "--device", "cpu", "--output",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start([*arguments, whole])
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-3000:]
    assert printed.count("mean, unseen") == 1
    written = json.loads((whole / "results.json").read_text())
    assert written["settings"]["processes"] == 2
    for one, two in zip(alone.runs, written["runs"], strict=True):
        assert len(two["losses"]) == two["epochs"] * 3  # 12 sentences by 5
        assert max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True)) < 1e-4
        assert one["accuracy"] == two["accuracy"]
        assert one["best_epoch"] == two["best_epoch"]
    assert (whole / "results.png").is_file()

    process = start([*arguments, killed, "--snapshot-seconds", 0])
    while process.poll() is None and not list(killed.glob("seeds/0/snapshots/step-*")):
        time.sleep(0.005)
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:  # the launcher last
        one.kill()
    process.communicate()
    assert not (killed / "results.json").exists(), "it was over before it could be killed"
    process = start([*arguments, killed])
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-3000:]
    again = json.loads((killed / "results.json").read_text())
    assert again | {"seconds": 0} == written | {"seconds": 0}
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
