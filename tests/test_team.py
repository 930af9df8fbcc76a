"""Two processes train what one does: the same batches, the same losses, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


def launch(arguments, cwd):
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.run([*LAUNCH, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
@pytest.mark.skipif(sys.platform == "win32", reason="gloo between processes is tested on Linux and macOS")
def test_two_processes_give_the_losses_of_one(own_corpus, tmp_path):
    """Without dropout, which each process draws for itself. Batches of 5 cannot be shared evenly, nor can 12 by 5."""
    checkpoint = toy_checkpoint(tmp_path / "toy", dropout=0.0)
    settings = Settings(epochs=3, batch_size=5, learning_rate=1e-3, accumulate=2)
    alone = finetuning.finetune("topics", checkpoint, data=own_corpus, settings=settings, device="cpu", seeds=(0, 1))
    arguments = [
        "--checkpoint", checkpoint, "--data", own_corpus, "--output", tmp_path / "out", "--seeds", "0,1", "--epochs", 3,
        "--batch-size", 5, "--learning-rate", 1e-3, "--accumulate", 2, "--device", "cpu",
    ]  # fmt: skip
    done = launch(map(str, arguments), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("mean, unseen") == 1
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["settings"]["processes"] == 2
    for one, two in zip(alone.runs, written["runs"], strict=True):
        assert len(one["losses"]) == 3 * 3
        assert max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True)) < 1e-4
        assert one["accuracy"] == two["accuracy"]
        assert one["best_epoch"] == two["best_epoch"]
    one, _, _ = finetuning.load_classifier(tmp_path / "out")
    assert one.classifier.out_proj.weight.shape == (2, 32)
    assert (tmp_path / "out" / "results.png").is_file()

    other = launch([*map(str, arguments), "--epochs", "4"], tmp_path)
    assert other.returncode != 0
    assert "epochs: 3 before, 4 now" in other.stderr
