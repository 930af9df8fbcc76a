"""The encoder against transformers: every layer's states, attentions and gradients; and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import batch, gradient_gaps, largest_gap, random_model, some_labels, transformers_model
from torch import nn

from xlmr_course import encoder as encoder_module
from xlmr_course.checkpoints import hugging_face_name
from xlmr_course.encoder import Dropout, Encoder, Packing, XLMRConfig, initialise
from xlmr_course.mlm import MaskedLM

SHAPE = XLMRConfig.tiny(vocab_size=300, num_hidden_layers=3, max_position_embeddings=514)
LENGTHS = {
    "equal": [12, 12, 12],
    "unequal": [9, 3, 17, 3, 1],
    "one token": [1],
    "full length": [512, 1, 40],
}


@pytest.fixture(scope="module")
def model():
    return random_model(SHAPE, std=0.2)


# --- the same numbers as transformers -------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@torch.no_grad()
def test_states_and_attentions_equal_transformers(model, lengths, attention):
    ids, mask = batch(lengths, SHAPE.vocab_size)
    theirs = transformers_model(model, attention).roberta
    wanted = theirs(ids, mask, output_hidden_states=True, output_attentions=attention == "eager")
    fused = model.encoder(ids, mask, output_hidden_states=True)
    written = model.encoder(ids, mask, output_hidden_states=True, output_attentions=True)
    assert len(fused.hidden_states) == len(wanted.hidden_states) == SHAPE.num_hidden_layers + 1
    for ours, also_ours, their in zip(fused.hidden_states, written.hidden_states, wanted.hidden_states, strict=True):
        assert largest_gap(ours, their, mask) < 1e-5
        assert largest_gap(also_ours, their, mask) < 1e-5
    assert torch.equal(fused.last_hidden_state, fused.hidden_states[-1])
    assert fused.attentions is None
    if attention == "eager":
        for ours, their in zip(written.attentions, wanted.attentions, strict=True):
            assert largest_gap(ours.transpose(1, 2), their.transpose(1, 2), mask) < 1e-5


@pytest.mark.parametrize("columns", [slice(3, None), slice(None, None, 2)], ids=["padding on the left", "holes"])
@torch.no_grad()
def test_real_tokens_may_stand_anywhere(model, columns):
    ids, _ = batch([9, 9], SHAPE.vocab_size)
    mask = torch.zeros_like(ids)
    mask[0, columns] = 1
    mask[1] = 1
    ids = ids.masked_fill(mask == 0, 1)
    wanted = transformers_model(model, "sdpa").roberta(ids, mask).last_hidden_state
    assert largest_gap(model.encoder(ids, mask).last_hidden_state, wanted, mask) < 1e-5


@torch.no_grad()
def test_a_mask_of_ones_over_padding_is_obeyed(model):
    """Then padding is attended to, as transformers does when the mask is forgotten."""
    ids, _ = batch([9, 3], SHAPE.vocab_size)
    ones = torch.ones_like(ids)
    wanted = transformers_model(model, "eager").roberta(ids, ones).last_hidden_state
    assert largest_gap(model.encoder(ids, ones).last_hidden_state, wanted, ones) < 1e-5


@torch.no_grad()
def test_without_a_mask_padding_does_not_count(model):
    ids, mask = batch([9, 3], SHAPE.vocab_size)
    assert torch.equal(model.encoder(ids).last_hidden_state, model.encoder(ids, mask).last_hidden_state)


@torch.no_grad()
def test_the_call_that_a_gpu_makes_gives_the_same(model):
    """On a CPU sentences are attended by length; elsewhere in one padded call."""
    _ids, mask = batch([9, 3, 17, 3], SHAPE.vocab_size)
    packing = Packing.of(mask.bool())
    attention = model.encoder.layers[0].attention
    x = torch.randn(int(mask.sum()), SHAPE.hidden_size, generator=torch.Generator().manual_seed(0))
    qkv = [part(x).unflatten(-1, (attention.heads, -1)) for part in (attention.query, attention.key, attention.value)]
    padded = packing.pack(attention.fused(*map(packing.unpack, qkv), packing.keep))
    torch.testing.assert_close(attention.by_length(qkv, packing), padded, atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_gets_zeros(model):
    ids, mask = batch([9, 3], SHAPE.vocab_size)
    out = model.encoder(ids, mask, output_attentions=True)
    assert out.last_hidden_state[1, 3:].abs().max() == 0
    assert out.attentions[0][1, :, 3:].abs().max() == 0
    assert out.attentions[0][1, :, :, 3:].abs().max() == 0
    torch.testing.assert_close(out.attentions[0][1, :, :3].sum(-1), torch.ones(SHAPE.num_attention_heads, 3))


def test_gradients_equal_transformers_with_and_without_checkpointing(model):
    ids, mask = batch([9, 3, 17, 3, 1], SHAPE.vocab_size)
    theirs = transformers_model(model, "eager").roberta
    weights = torch.randn((*ids.shape, SHAPE.hidden_size), generator=torch.Generator().manual_seed(1)) * mask[..., None]
    (theirs(ids, mask).last_hidden_state * weights).sum().backward()
    for checkpointing in (False, True):
        model.encoder.gradient_checkpointing = checkpointing
        model.zero_grad()
        (model.encoder(ids, mask).last_hidden_state * weights).sum().backward()
        model.encoder.gradient_checkpointing = False
        for name in ("embeddings.word.weight", "embeddings.position.weight", "layers.0.attention.query.weight"):
            wanted = theirs.get_parameter(hugging_face_name(name)).grad
            assert (model.encoder.get_parameter(name).grad - wanted).norm() < 1e-5 * wanted.norm(), name
    model.zero_grad()


# --- the published sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "with_head", "body"),
    [(XLMRConfig.base(), 278_295_186, 277_453_056), (XLMRConfig.large(), 560_142_482, 558_840_832)],
    ids=["base", "large"],
)
def test_parameters_are_those_of_the_published_models(config, with_head, body):
    model = MaskedLM(Encoder(config, device="meta"))
    assert sum(p.numel() for p in model.parameters()) == with_head
    assert sum(p.numel() for p in model.encoder.parameters()) == body


PROOF = """
import gc, pathlib, sys, torch
from reference import batch, gradient_gaps, largest_gap, random_model, some_labels, transformers_model
from xlmr_course.encoder import XLMRConfig

config = getattr(XLMRConfig, sys.argv[1])()
model = random_model(config)
long, short = [512, 1, 33], [24, 1, 9]
for attention in ("eager", "sdpa"):
    theirs = transformers_model(model, attention)
    assert theirs.lm_head.decoder.weight.data_ptr() == model.encoder.embeddings.word.weight.data_ptr()
    ids, mask = batch(long, config.vocab_size)
    with torch.no_grad():
        eager = attention == "eager"
        ours = model.encoder(ids, mask, output_hidden_states=True, output_attentions=eager)
        wanted = theirs.roberta(ids, mask, output_hidden_states=True, output_attentions=eager)
        states = max(map(lambda a, b: largest_gap(a, b, mask), ours.hidden_states, wanted.hidden_states))
        assert len(ours.hidden_states) == len(wanted.hidden_states) == config.num_hidden_layers + 1
        print(attention, "states", states)
        assert states < 1e-4
        if eager:
            weights = max(
                largest_gap(a.transpose(1, 2), b.transpose(1, 2), mask)
                for a, b in zip(ours.attentions, wanted.attentions, strict=True)
            )
            print("attentions", weights)
            assert weights < 1e-4
    del ours, wanted
    # The logits of 512 tokens and their loss; then a batch of unequal sentences with all gradients.
    for lengths, backward in (([512], False), (short, not eager)):
        ids, mask = batch(lengths, config.vocab_size)
        labels = some_labels(ids, mask)
        with torch.set_grad_enabled(backward):
            ours, wanted = model(ids, mask, labels), theirs(ids, mask, labels=labels)
        logits = (ours.logits - wanted.logits[labels != -100]).abs().max().item()
        loss = abs(ours.loss.item() - wanted.loss.item())
        print(lengths, "logits", logits, "loss", loss)
        assert logits < 1e-4 and loss < 1e-5
        if backward:
            gaps = gradient_gaps(model, ours.loss, theirs, wanted.loss)
            print("gradients", max(gaps.values()), max(gaps, key=gaps.get), len(gaps))
            assert len(gaps) == len(list(model.parameters())) and max(gaps.values()) < 1e-4
        del ours, wanted
    del theirs
    gc.collect()
status = pathlib.Path("/proc/self/status")
if status.exists():  # Linux; `ru_maxrss` would count the process that started this one
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    print(f"peak {peak / 1e9:.2f} GB")
    assert peak < 10e9
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["base", "large"])
def test_everything_equals_transformers_at_full_size(size):
    """All states, attentions, logits, loss and gradients, in a process of its own so that its memory can be seen."""
    done = subprocess.run(
        [sys.executable, "-c", PROOF, size], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


# --- the real weights -----------------------------------------------------------------------------------------------

SENTENCES = [
    "The library opens at nine o'clock every morning.",
    "图书馆每天早上九点开门。",
    "पुस्तकालय हर सुबह नौ बजे खुलता है।",
    "تفتح المكتبة أبوابها في التاسعة صباحا كل يوم.",
    "Ja!",
]


@pytest.fixture(scope="module")
def real(small):
    from transformers import XLMRobertaModel

    from xlmr_course import checkpoints

    ours = checkpoints.load_encoder("small")
    theirs = XLMRobertaModel.from_pretrained(small, add_pooling_layer=False, attn_implementation="eager").eval()
    given = checkpoints.load_tokenizer("small")(SENTENCES, padding=True, return_tensors="pt")
    ids, mask = given["input_ids"], given["attention_mask"]
    with torch.no_grad():
        wanted = theirs(ids, mask, output_hidden_states=True, output_attentions=True)
    return ours, wanted, ids, mask


@torch.no_grad()
def test_real_weights_give_transformers_states_and_attentions(real):
    ours, wanted, ids, mask = real
    out = ours(ids, mask, output_hidden_states=True, output_attentions=True)
    fused = ours(ids, mask, output_hidden_states=True)
    for states in (out.hidden_states, fused.hidden_states):
        assert max(map(lambda a, b: largest_gap(a, b, mask), states, wanted.hidden_states)) < 1e-4
    for ours_, theirs in zip(out.attentions, wanted.attentions, strict=True):
        assert largest_gap(ours_.transpose(1, 2), theirs.transpose(1, 2), mask) < 1e-4


def pre_norm(self, x, packing, weights=False):
    mixed, given = self.attention(self.attention_norm(x), packing, weights)
    x = x + mixed
    return x + self.feed_forward(self.output_norm(x)), given


def plant(name: str, encoder: Encoder, monkeypatch) -> None:
    """One classic mistake."""
    if name == "positions from 0":
        monkeypatch.setattr(encoder.embeddings, "positions", lambda ids: torch.arange(ids.shape[1]).expand_as(ids))
    elif name == "positions from 1":
        monkeypatch.setattr(encoder.embeddings, "positions", lambda ids: torch.arange(ids.shape[1]).expand_as(ids) + 1)
    elif name == "pre-norm":
        monkeypatch.setattr(encoder_module.Layer, "forward", pre_norm)
    elif name == "tanh GELU":
        monkeypatch.setattr(encoder_module, "gelu", lambda x: F.gelu(x, approximate="tanh"))
    elif name == "LayerNorm eps 1e-2":
        for part in encoder.modules():
            if isinstance(part, nn.LayerNorm):
                monkeypatch.setattr(part, "eps", 1e-2)
    elif name == "no square root":
        for layer in encoder.layers:
            monkeypatch.setattr(layer.attention, "scale", 1.0)


@pytest.mark.parametrize(
    "mistake",
    ["positions from 0", "positions from 1", "pre-norm", "tanh GELU", "LayerNorm eps 1e-2", "no square root", "mask"],
)
@torch.no_grad()
def test_each_classic_mistake_shows(real, mistake, monkeypatch):
    """The proofs above would notice: every mistake moves the last layer at least ten times further than they allow."""
    ours, wanted, ids, mask = real
    plant(mistake, ours, monkeypatch)
    states = ours(ids, torch.ones_like(mask) if mistake == "mask" else mask).last_hidden_state
    assert largest_gap(states, wanted.hidden_states[-1], mask) > 1e-3


# --- number formats -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_bfloat16_is_as_exact_as_transformers_bfloat16(model):
    ids, mask = batch([9, 3, 17, 3, 1], SHAPE.vocab_size)
    exact = model.encoder(ids, mask).last_hidden_state
    half = random_model(SHAPE, std=0.2).to(torch.bfloat16)
    ours = half.encoder(ids, mask).last_hidden_state
    theirs = transformers_model(half, "eager").roberta(ids, mask).last_hidden_state
    assert ours.dtype == torch.bfloat16
    error = (ours.float() - exact)[mask.bool()].abs().mean()
    their_error = (theirs.float() - exact)[mask.bool()].abs().mean()
    assert 0 < error < 1.1 * their_error


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_autocast_trains_in_half_precision(model, dtype, bits):
    ids, mask = batch([9, 3, 17, 3, 1], SHAPE.vocab_size)
    labels = some_labels(ids, mask)
    exact = model(ids, mask, labels).loss
    exact.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        half = model(ids, mask, labels).loss
    half.backward()
    assert abs(half.item() - exact.item()) < 2 ** -(bits - 3) * exact.item()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all(), name
    word = "encoder.embeddings.word.weight"
    assert F.cosine_similarity(model.get_parameter(word).grad.flatten(), wanted[word].flatten(), dim=0) > 0.99
    model.zero_grad()


# --- dropout and initial weights ------------------------------------------------------------------------------------


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1001, 999)
    dropped = Dropout(0.1).train()(x)
    assert abs((dropped == 0).float().mean() - 0.1) < 0.001  # 0.0003 is one standard deviation
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9], abs=1e-4)
    zeros = (dropped == 0).float()
    for other in (zeros.roll(1, 1), zeros.roll(1, 0), zeros.roll(4, 1)):  # neighbours fall independently
        assert abs((zeros * other).mean() - 0.01) < 0.001
    assert torch.equal(Dropout(0.1).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)


def test_dropout_repeats_with_its_seed_and_passes_the_gradient():
    x = torch.ones(7, 13, requires_grad=True)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(Dropout(0.5).train()(x))
    assert torch.equal(*results)
    results[0].sum().backward()
    assert torch.equal(x.grad, results[0].detach())


def test_training_differs_from_call_to_call_and_evaluation_does_not(model):
    ids, mask = batch([9, 3], SHAPE.vocab_size)
    with torch.no_grad():
        evaluated = [model.encoder(ids, mask).last_hidden_state for _ in range(2)]
        trained = [model.train().encoder(ids, mask).last_hidden_state for _ in range(2)]
    model.eval()
    assert torch.equal(*evaluated)
    assert not torch.equal(*trained)


def test_initial_weights_are_drawn_as_published():
    encoder = Encoder(SHAPE, torch.Generator().manual_seed(5))
    again = Encoder(SHAPE, torch.Generator().manual_seed(5))
    for (name, p), q in zip(encoder.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q), name
        if p.dim() == 2 and p.numel() > 1000:
            assert abs(p.std() - 0.02) < 0.001, name
        elif name.endswith("bias"):
            assert p.abs().max() == 0, name
    assert encoder.embeddings.word.weight[1].abs().max() == 0
    assert encoder.embeddings.position.weight[1].abs().max() == 0
    assert encoder.layers[0].output_norm.weight.unique().tolist() == [1.0]
    initialise(encoder, SHAPE, torch.Generator().manual_seed(6))
    assert not torch.equal(encoder.embeddings.word.weight, again.embeddings.word.weight)


# --- packing --------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=6))
def test_packing_keeps_each_real_token_once(rows):
    keep = torch.tensor(rows)
    packing = Packing.of(keep)
    x = torch.arange(keep.numel()).view(*keep.shape, 1) + 1
    assert torch.equal(packing.unpack(packing.pack(x)), x * keep[..., None])
    packed, start = packing.pack(x).flatten(), 0
    for count, length in packing.groups:
        for sentence in packed[start : start + count * length].view(count, length):
            row = (sentence[0] - 1) // keep.shape[1]
            assert sentence.tolist() == x[row, keep[row]].flatten().tolist()
            start += length
    assert start == keep.sum()


def test_the_example_of_the_docstring():
    keep = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]]).bool()
    packing = Packing.of(keep)
    assert packing.index.tolist() == [3, 4, 0, 1, 2, 6, 7, 8]
    assert packing.groups == [(1, 2), (2, 3)]


def test_positions_start_at_two_and_skip_padding():
    embeddings = Encoder(SHAPE, device="meta").embeddings
    assert embeddings.positions(torch.tensor([[0, 7, 2, 1, 1]])).tolist() == [[2, 3, 4, 1, 1]]
    assert embeddings.positions(torch.tensor([[1, 1, 0, 7, 2]])).tolist() == [[1, 1, 2, 3, 4]]


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (torch.full((1, 3), 300), None, "id 300 .* 0 to 299"),
        (torch.tensor([[0, -1, 2]]), None, "id -1 "),
        (torch.full((2, 513), 7), None, "513 tokens.* 512"),
        (torch.full((1, 3), 7.0), None, "float32"),
        (torch.full((3,), 7), None, r"\(3,\)"),
        (torch.zeros((0, 3), dtype=torch.long), None, r"\(0, 3\)"),
        (torch.full((2, 3), 7), torch.ones(2, 4), r"\(2, 4\).*\(2, 3\)"),
        (torch.full((2, 3), 7), torch.ones(2, 1, 1, 3), r"\(2, 1, 1, 3\)"),
        (torch.full((2, 3), 7), torch.tensor([[1, 1, 1], [0, 0, 0]]), "sentence 1 .*1 of 2"),
        (torch.ones((2, 3), dtype=torch.long), None, "sentence 0 .*2 of 2"),
        (torch.full((1, 3), 7), torch.tensor([[0.0, 0.5, 1.0]]), "0 to 1"),
        (torch.full((1, 3), 7), torch.tensor([[0, 0, -10000]]), "-10000 to 0"),
    ],
)
def test_bad_batches_are_refused_with_the_values(model, ids, mask, message):
    with pytest.raises(ValueError, match=message):
        model.encoder(ids, mask)


def test_padding_beyond_512_places_is_no_error(model):
    ids, mask = batch([512, 4], SHAPE.vocab_size)
    wider = F.pad(ids, (0, 20), value=1)
    with torch.no_grad():
        wide = model.encoder(wider).last_hidden_state
        assert largest_gap(wide[:, :512], model.encoder(ids).last_hidden_state, mask) < 1e-6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 130}, "hidden_size=130.*num_attention_heads=4"),
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"pad_token_id": 300}, "pad_token_id=300"),
        ({"max_position_embeddings": 2}, "max_position_embeddings=2"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0"),
    ],
)
def test_impossible_shapes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        XLMRConfig.tiny(**({"vocab_size": 300} | wrong))


def test_gradients_of_every_parameter_with_the_head(model):
    ids, mask = batch([9, 3, 17, 3, 1], SHAPE.vocab_size)
    labels = some_labels(ids, mask)
    theirs = transformers_model(model, "sdpa")
    gaps = gradient_gaps(model, model(ids, mask, labels).loss, theirs, theirs(ids, mask, labels=labels).loss)
    assert len(gaps) == len(list(model.parameters()))
    assert max(gaps.values()) < 1e-4
    model.zero_grad()
