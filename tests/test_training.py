"""Stopping and going on: snapshots are whole or not there, and hold all that the next step depends on."""

import errno
import logging
import os

import pytest
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from xlmr_course import training
from xlmr_course.training import TrainingError


def state(number: int) -> dict:
    return {"weights": torch.full((1000,), float(number)), "notes": ["a", 1, 2.5, None], "nested": {"list": [1, 2]}}


def folder_of(path):
    return path / training.SNAPSHOTS


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    assert training.load_snapshot(tmp_path) is None
    training.save_snapshot(tmp_path, state(1), 7)
    found = training.load_snapshot(tmp_path)
    assert found.pop("step") == 7
    assert torch.equal(found.pop("weights"), state(1)["weights"])
    assert found == {"notes": ["a", 1, 2.5, None], "nested": {"list": [1, 2]}}


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 10, 9, 11):
        training.save_snapshot(tmp_path, state(step), step)
    assert [training._step_of(path) for path in training._snapshots(folder_of(tmp_path))] == [9, 11]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_snapshot_falls_back_on_the_one_before(tmp_path, damage, caplog):
    training.save_snapshot(tmp_path, state(1), 100)
    last = training.save_snapshot(tmp_path, state(2), 200)
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1  # torch.load reads such a file without a word
    last.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        found = training.load_snapshot(tmp_path)
    assert found["step"] == 100
    assert found["weights"][0] == 1
    assert "the snapshot of step 200 is damaged; the one before it is used" in caplog.text
    training.save_snapshot(tmp_path, state(3), 150)
    assert [training._step_of(path) for path in training._snapshots(folder_of(tmp_path))] == [100, 150]


def test_nothing_but_damaged_snapshots_is_an_error(tmp_path):
    training.save_snapshot(tmp_path, state(1), 100).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="all snapshots"):
        training.load_snapshot(tmp_path)


def test_a_half_written_file_is_no_snapshot(tmp_path):
    training.save_snapshot(tmp_path, state(1), 100)
    (folder_of(tmp_path) / "snapshot.part").write_bytes(b"what a killed process left")
    assert training.load_snapshot(tmp_path)["step"] == 100
    training.save_snapshot(tmp_path, state(2), 200)
    assert training.load_snapshot(tmp_path)["step"] == 200


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
def test_a_full_disk_leaves_the_last_good_one_and_says_so(tmp_path):
    training.save_snapshot(tmp_path, state(1), 1200)
    (folder_of(tmp_path) / "snapshot.part").symlink_to("/dev/full")
    with pytest.raises(
        TrainingError, match=r"step 1,300 could not be written: the disk is full; the one of step 1,200"
    ):
        training.save_snapshot(tmp_path, {"large": torch.zeros(1_000_000)}, 1300)
    assert training.load_snapshot(tmp_path)["step"] == 1200
    training.save_snapshot(tmp_path, state(2), 1300)  # and goes on when there is room again
    assert training.load_snapshot(tmp_path)["step"] == 1300


def test_the_disk_may_be_full_as_late_as_fsync(tmp_path, monkeypatch):
    training.save_snapshot(tmp_path, state(1), 1)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.os, "fsync", full)
    with pytest.raises(TrainingError, match="the disk is full"):
        training.save_snapshot(tmp_path, state(2), 2)
    assert training.load_snapshot(tmp_path)["step"] == 1


def test_a_snapshot_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("the trap sprang",)

    training.save_snapshot(tmp_path, state(1), 1)
    training.save_snapshot(tmp_path, {"trap": Trap()}, 2)
    assert training.load_snapshot(tmp_path)["step"] == 1


def test_random_states_come_back():
    mine = torch.Generator().manual_seed(5)
    torch.rand(3, generator=mine), torch.rand(2)
    states = training.random_states({"mine": mine})
    wanted = torch.rand(4, generator=mine), torch.rand(4)
    training.restore_random_states(states, {"mine": mine})
    assert torch.equal(torch.rand(4, generator=mine), wanted[0])
    assert torch.equal(torch.rand(4), wanted[1])


def test_a_folder_is_claimed_once(tmp_path):
    folder = tmp_path / "run"
    training.claim_folder(folder, {"settings": {"alpha": 0.3, "betas": (0.9, 0.98)}})
    training.claim_folder(folder, {"settings": {"alpha": 0.3, "betas": (0.9, 0.98)}})
    with pytest.raises(TrainingError, match=r"another run: settings.alpha: 0.3 before, 1.0 now"):
        training.claim_folder(folder, {"settings": {"alpha": 1.0, "betas": (0.9, 0.98)}})


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(TrainingError, match=r"holds thesis\.docx and no run\.json"):
        training.claim_folder(tmp_path, {})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(TrainingError, match=r"run\.json .* damaged"):
        training.claim_folder(tmp_path, {})


def test_differences_are_named():
    old = {"steps": 10, "data": {"sw": 5}, "gone": 1}
    new = {"steps": 10, "data": {"sw": 6, "ur": 1}}
    assert training.configuration_difference(old, new) == [
        "data.sw: 5 before, 6 now",
        "data.ur: nothing before, 1 now",
        "gone: 1 before, nothing now",
    ]
    assert training.configuration_difference(old, dict(old)) == []


def test_the_schedule_is_transformers_moved_by_one_step():
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimiser, 10, 100)
    for step in range(99):
        optimiser.step()
        theirs.step()  # theirs begins at 0, a step that learns nothing
        ours = training.warmup_decay(step, 100, 0.1)
        wanted = theirs.get_last_lr()[0]
        assert ours == pytest.approx(wanted if step < 10 else wanted + 1 / 90)
    assert training.warmup_decay(0, 1, 0.5) == 1.0
    assert training.warmup_decay(100, 100, 0.1) == 0.0


def test_biases_and_norms_are_not_decayed():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    model[0].weight.requires_grad_(False)
    decayed, kept = training.adamw(model, 0.1, 0.5).param_groups
    assert [p.shape for p in decayed["params"]] == []
    assert [tuple(p.shape) for p in kept["params"]] == [(3,)] * 3
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.5, 0.0)


def test_precision():
    assert training.precision("cpu") == torch.float32
    assert training.precision("cpu", "bfloat16") == torch.bfloat16
    with pytest.raises(ValueError, match="precision='half' is unknown; use auto, float32"):
        training.precision("cpu", "half")


def test_stop_and_go_on_is_bit_for_bit(tmp_path):
    """A loop as small as they come: dropout, AdamW with a schedule, a generator for the data."""

    def run(folder, stop_at=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        optimiser = training.adamw(model, 0.05)
        data = torch.Generator().manual_seed(1)
        step = 0
        if found := training.load_snapshot(folder):
            model.load_state_dict(found["model"])
            optimiser.load_state_dict(found["optimiser"])
            training.restore_random_states(found["random"], {"data": data})
            step = found["step"]
        for now in range(step, 20):
            if now == stop_at:
                return None
            training.set_learning_rate(optimiser, 0.05 * training.warmup_decay(now, 20, 0.2))
            model(torch.randn(8, 4, generator=data)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            training.save_snapshot(folder, state | {"random": training.random_states({"data": data})}, now + 1)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    straight = run(tmp_path / "straight")
    assert run(tmp_path / "stopped", stop_at=3) is None
    assert run(tmp_path / "stopped", stop_at=11) is None
    assert torch.equal(run(tmp_path / "stopped"), straight)
