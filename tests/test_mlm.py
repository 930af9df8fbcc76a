"""Masking by both rules, the tied head and the loss on chosen tokens only, against transformers and plain autograd."""

import pytest
import torch
import torch.nn.functional as F
from reference import batch, random_model, some_labels, transformers_model

from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.mlm import IGNORED, MaskedLM, TiedTable, mask_tokens

SHAPE = XLMRConfig.tiny(vocab_size=300, num_hidden_layers=2, hidden_size=32, intermediate_size=64)


class Tokenizer:
    """What `mask_tokens` asks of a tokenizer."""

    all_special_ids = (0, 1, 2, 3, 299)
    mask_token_id = 299

    def __len__(self):
        return 300


@pytest.fixture(scope="module")
def model():
    return random_model(SHAPE, std=0.2)


@pytest.fixture(scope="module")
def big_batch():
    return batch([200] * 300 + [50] * 100, 300)


def draw(ids, seed=0, **options):
    return mask_tokens(ids, Tokenizer(), generator=torch.Generator().manual_seed(seed), **options)


# --- masking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["independent", "exact"])
def test_shares_are_15_percent_and_80_10_10(big_batch, rule):
    ids, _ = big_batch
    before = ids.clone()
    inputs, labels = draw(ids, rule=rule)
    assert torch.equal(ids, before)
    ordinary = ~torch.isin(ids, torch.tensor(Tokenizer.all_special_ids))
    chosen = labels != IGNORED
    assert not (chosen & ~ordinary).any()
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(inputs[~chosen], ids[~chosen])
    n = int(chosen.sum())  # about 9,700: one standard deviation of a share of 0.8 is 0.004
    assert abs(n / ordinary.sum() - 0.15) < 0.006
    masked = (inputs == 299) & chosen
    randomised = (inputs != ids) & chosen & ~masked
    assert abs(masked.sum() / n - 0.8) < 0.016
    # A random id hits the original once in 295 draws, which then counts as "left as it was".
    assert abs(randomised.sum() / n - 0.1) < 0.012
    drawn = inputs[randomised].unique()
    assert not torch.isin(drawn, torch.tensor(Tokenizer.all_special_ids)).any()
    assert {4, 298} <= set(draw(ids, mask_share=0, random_share=1, probability=1)[0].unique().tolist())


def test_random_words_are_drawn_evenly(big_batch):
    ids, _ = big_batch
    inputs, labels = draw(ids, probability=1.0, mask_share=0.0, random_share=1.0)
    counts = inputs[labels != IGNORED].bincount(minlength=300)
    assert counts[list(Tokenizer.all_special_ids)].sum() == 0
    expected = counts.sum() / 295
    squares = ((counts[4:299] - expected) ** 2 / expected).sum()
    assert squares < 395  # chi-squared with 294 degrees of freedom exceeds this once in 10,000 draws


def test_the_exact_rule_fixes_the_number_in_each_sentence():
    ids, _ = batch([22] * 200, 300)  # 20 ordinary tokens each
    counts = (draw(ids, rule="exact")[1] != IGNORED).sum(dim=1)
    assert counts.unique().tolist() == [3]
    ids, _ = batch([12] * 400, 300)  # 10 each: 1.5 on average
    counts = (draw(ids, rule="exact")[1] != IGNORED).sum(dim=1)
    assert counts.unique().tolist() == [1, 2]
    assert abs(counts.float().mean() - 1.5) < 0.1  # 0.025 is one standard deviation
    independent = (draw(ids)[1] != IGNORED).sum(dim=1)
    assert independent.min() == 0  # 0.85 ** 10 is 0.2
    assert independent.max() > 2


@pytest.mark.parametrize("rule", ["independent", "exact"])
def test_every_place_is_as_likely(rule):
    ids, _ = batch([12] * 6000, 300)
    share = (draw(ids, rule=rule)[1] != IGNORED)[:, 1:-1].float().mean(dim=0)
    assert (share - 0.15).abs().max() < 0.02  # 0.0046 is one standard deviation


def test_a_generator_decides_everything(big_batch):
    ids, _ = big_batch
    first, again, other = draw(ids), draw(ids), draw(ids, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    state = torch.get_rng_state()
    draw(ids, rule="exact")
    assert torch.equal(state, torch.get_rng_state())


def test_a_sentence_of_special_tokens_only_is_left_alone():
    ids = torch.tensor([[0, 3, 299, 2, 1]])
    for rule in ("independent", "exact"):
        inputs, labels = draw(ids, probability=1.0, rule=rule)
        assert torch.equal(inputs, ids)
        assert (labels == IGNORED).all()


def test_the_course_tokenizer_has_what_masking_needs(small):
    from xlmr_course.checkpoints import load_tokenizer

    tokenizer = load_tokenizer("small")
    ids = torch.tensor([tokenizer.encode("One sentence with a <mask> in it, and enough words for a few to be chosen.")])
    inputs, labels = mask_tokens(ids, tokenizer, 1.0, torch.Generator().manual_seed(0), random_share=0, mask_share=1)
    assert (labels == IGNORED).sum() == 3  # <s>, </s> and the <mask> that stood there
    assert set(inputs[0].tolist()) == {0, 2, 250_001}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, "probability=1.5"),
        ({"mask_share": -0.1}, "mask_share=-0.1"),
        ({"mask_share": 0.95}, "more than 1"),
        ({"rule": "sometimes"}, "'sometimes'"),
    ],
)
def test_impossible_shares_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw(torch.tensor([[0, 7, 2]]), **options)


def test_ids_of_another_tokenizer_are_refused():
    with pytest.raises(ValueError, match=r"5 to 300.* 0 to 299"):
        draw(torch.tensor([[5, 300]]))


# --- head and loss --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("lengths", [[8, 8], [9, 3, 17, 3, 1], [128, 1], [1]], ids=str)
@torch.no_grad()
def test_logits_and_loss_equal_transformers(model, lengths, attention):
    ids, mask = batch(lengths, SHAPE.vocab_size)
    labels = some_labels(ids, mask)
    wanted = transformers_model(model, attention)(ids, mask, labels=labels)
    without, given = model(ids, mask), model(ids, mask, labels)
    assert without.loss is None
    assert without.logits.shape == (*ids.shape, SHAPE.vocab_size)
    assert (without.logits - wanted.logits)[mask.bool()].abs().max() < 1e-5
    assert given.logits.shape == (int((labels != IGNORED).sum()), SHAPE.vocab_size)
    assert (given.logits - wanted.logits[labels != IGNORED]).abs().max() < 1e-5  # and in the same order
    assert abs(given.loss - wanted.loss) < 1e-5


def plainly(table, ids, bias, weight, targets):
    """What `TiedTable` computes, left to autograd."""
    states = torch.tanh(F.embedding(ids, table, padding_idx=1) @ weight)
    logits = F.linear(states[: len(targets)], table, bias)
    return F.cross_entropy(logits, targets), logits


def by_tied_table(table, ids, bias, weight, targets):
    tied = TiedTable(table)
    states = torch.tanh(tied.look_up(ids, 1) @ weight)
    return tied.loss(states[: len(targets)], bias, targets)


@pytest.mark.parametrize("frozen", [[], ["table"], ["bias"], ["weight"], ["table", "bias"]], ids=str)
def test_the_tied_table_has_autograds_gradient(frozen):
    generator = torch.Generator().manual_seed(0)
    given = {
        "table": torch.randn(50, 8, generator=generator, dtype=torch.float64),
        "ids": torch.tensor([7, 1, 9, 7, 30] * 10),  # twice the same word, and padding among them
        "bias": torch.randn(50, generator=generator, dtype=torch.float64),
        "weight": torch.randn(8, 8, generator=generator, dtype=torch.float64),
        "targets": torch.randint(50, (40,), generator=generator),  # more than the rows taken at a time
    }
    results = []
    for compute in (plainly, by_tied_table):
        leaves = {
            name: t.clone().requires_grad_(t.is_floating_point() and name not in frozen) for name, t in given.items()
        }
        loss, logits = compute(**leaves)
        (3 * loss).backward()
        results.append((loss.detach(), logits.detach(), *(leaves[n].grad for n in ("table", "bias", "weight"))))
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_gradients_add_up_over_steps_and_repeat(model):
    ids, mask = batch([9, 3, 17], SHAPE.vocab_size)
    labels = some_labels(ids, mask)
    model.zero_grad()
    model(ids, mask, labels).loss.backward()
    once = {name: p.grad.clone() for name, p in model.named_parameters()}
    loss = model(ids, mask, labels).loss
    word = model.encoder.embeddings.word.weight
    (alone,) = torch.autograd.grad(loss, word, retain_graph=True)
    loss.backward()
    torch.testing.assert_close(alone, once["encoder.embeddings.word.weight"])
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name], msg=name)
    model.zero_grad()


def test_checkpointed_training_gives_the_same_gradients(model):
    ids, mask = batch([9, 3, 17], SHAPE.vocab_size)
    labels = some_labels(ids, mask)
    gradients = []
    for checkpointing in (False, True):
        model.train().encoder.gradient_checkpointing = checkpointing
        torch.manual_seed(0)
        model.zero_grad()
        model(ids, mask, labels).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    model.eval().encoder.gradient_checkpointing = False
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
    model.zero_grad()


def test_the_decoder_is_the_embedding_table(model):
    assert not any("decoder" in name for name, _ in model.named_parameters())
    ids = torch.tensor([[0, 7, 2]])
    with torch.no_grad():
        before = model(ids).logits
        model.encoder.embeddings.word.weight[50] += 1
        after = model(ids).logits
        model.encoder.embeddings.word.weight[50] -= 1
    assert (before != after).nonzero()[:, 2].unique().tolist() == [50]


def test_ten_steps_bring_the_loss_down():
    generator = torch.Generator().manual_seed(0)
    model = MaskedLM(Encoder(SHAPE, generator), generator).train()
    torch.manual_seed(0)
    ids, mask = batch([9, 5, 12], SHAPE.vocab_size)
    inputs, labels = draw(ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model(inputs, mask, labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert abs(losses[0] - torch.tensor(300.0).log()) < 0.2  # at first every word is as likely: ln V
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((1, 4), IGNORED), "no token is chosen"),
        (torch.full((2, 5), 7), r"\(2, 5\).*\(1, 4\)"),
        (torch.tensor([[IGNORED, 300, IGNORED, IGNORED]]), "label 300"),
        (torch.tensor([[IGNORED, -1, IGNORED, IGNORED]]), "label -1"),
        (torch.tensor([[IGNORED, 7, IGNORED, 1]]), "sentence 0 .* place 3"),
    ],
)
def test_labels_without_sense_are_refused(model, labels, message):
    with pytest.raises(ValueError, match=message):
        model(torch.tensor([[0, 7, 2, 1]]), labels=labels)
