"""The classification head against transformers' XLMRobertaForSequenceClassification."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from xlmr_course import checkpoints
from xlmr_course.encoder import Encoder, XLMRConfig
from xlmr_course.heads import SequenceClassifier


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(0)
    return SequenceClassifier(Encoder(XLMRConfig.tiny(vocab_size=50), generator), 3, generator).eval()


def test_logits_and_loss_equal_transformers_on_the_same_weights(model, tmp_path):
    checkpoints.save_pretrained(model, None, tmp_path, extra_config={"id2label": {0: "a", 1: "b", 2: "c"}})
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[0, 7, 9, 30, 2], [0, 8, 2, 1, 1]])
    mask = ids.ne(1).long()
    labels = torch.tensor([2, 0])
    with torch.no_grad():
        ours, wanted = model(ids, mask, labels), theirs(ids, attention_mask=mask, labels=labels)
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}
    torch.testing.assert_close(ours.logits, wanted.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.loss, wanted.loss, atol=1e-5, rtol=0)


def test_a_batch_gives_what_its_sentences_give_alone(model):
    with torch.no_grad():
        together = model(torch.tensor([[0, 7, 9, 30, 2], [0, 8, 2, 1, 1]])).logits
        alone = model(torch.tensor([[0, 8, 2]])).logits
    torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=0)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="num_labels=1"):
        SequenceClassifier(Encoder(XLMRConfig.tiny(vocab_size=50)), 1)
