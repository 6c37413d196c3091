"""The cache under losses that pass several texts of an example through the encoder."""

import pytest
import torch
from training import tiny_bert

from adaptivefreeze import BottomUp, FreezeCallback, PrefixCache, freeze
from adaptivefreeze.cache import CacheSession

st = pytest.importorskip("sentence_transformers")
LETTERS = "abcdefgh"
EPOCHS = 4


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    BertModel(tiny_bert().config).save_pretrained(folder)
    return str(folder)


def texts(count, seed):
    """Different texts, so that none is found before its second pass."""
    generator = torch.Generator().manual_seed(seed)
    found = set()
    while len(found) < count:
        found.add(" ".join(LETTERS[i] for i in torch.randint(0, 8, (6,), generator=generator).tolist()))
    return sorted(found)


def train(encoder, folder, columns, change=None, **arguments):
    from datasets import Dataset
    from sentence_transformers.sentence_transformer import losses

    rows = Dataset.from_dict({name: texts(24, seed) for seed, name in enumerate(columns)})
    if change is not None:
        rows = rows.with_transform(change)
    model = st.SentenceTransformer(encoder, device="cpu")
    callback = FreezeCallback(BottomUp(2), cache=True)
    st.SentenceTransformerTrainer(
        model=model,
        args=st.SentenceTransformerTrainingArguments(
            str(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=4, report_to="none",
            disable_tqdm=True, use_cpu=True, save_strategy="no", **arguments,
        ),
        train_dataset=rows,
        loss=losses.MultipleNegativesRankingLoss(model),
        callbacks=[callback],
    ).train()  # fmt: skip
    return callback.cache.stats


@pytest.mark.parametrize("columns", [("anchor", "positive"), ("anchor", "positive", "negative")], ids=len)
def test_texts_of_pairs_and_triplets_are_found_again(encoder, tmp_path, columns):
    stats = train(encoder, tmp_path, columns)
    assert stats.disabled_reason is None
    assert stats.misses == len(columns) * 24
    assert stats.hit_rate == pytest.approx(1 - 1 / EPOCHS)
    assert stats.hit_rate >= 0.7


def test_pairs_that_change_in_every_epoch_disable_it(encoder, tmp_path):
    generator = torch.Generator().manual_seed(9)

    def shuffled(batch):
        return {name: [" ".join(LETTERS[i] for i in torch.randint(0, 8, (8,), generator=generator)) for _ in column]
                for name, column in batch.items()}  # fmt: skip

    stats = train(encoder, tmp_path, ("anchor", "positive"), shuffled)
    assert "hardly any example is found again" in stats.disabled_reason
    assert stats.misses <= 1.5 * 2 * 24


def test_a_pass_that_is_resumed_in_its_middle_does_not_count_as_one():
    model = tiny_bert()
    texts = torch.arange(5, 29).reshape(24, 1).repeat(1, 4)
    with freeze(model, BottomUp(2)) as run:
        session = CacheSession(PrefixCache(), model, run.stack, partial=True)
        session.move(run.mask, passes=3, examples=12)
        session.next_epoch()
        model(input_ids=texts[-2:])
        for _ in range(2):
            session.next_epoch()
            for batch in texts.split(4):
                model(input_ids=batch)
        session.detach()
    assert session.stats.disabled_reason is None
    assert (session.stats.misses, session.stats.hits) == (24, 26)
