"""Words to subwords: labels on first subwords; truncated and unknown words are counted."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, RobertaConfig, RobertaTokenizer

from adaptivefreeze.data.corpus import LabelledTexts, TaggedSentences
from adaptivefreeze.data.models import find_model, load_tokenizer
from adaptivefreeze.data.tokenization import IGNORED, Coverage, encode_sentences, encode_texts
from adaptivefreeze.errors import RequestError

IDS = {"O": 0, "B-PER": 1, "I-PER": 2}
WORDS = st.text(alphabet=string.ascii_letters + string.digits, min_size=1, max_size=9)
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, st.sampled_from(list(IDS))), min_size=1, max_size=8), min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def subwords(tokenizer, encoded, row=0):
    return tokenizer.convert_ids_to_tokens(encoded.columns["input_ids"][row])


def test_only_the_first_subword_of_a_word_is_labelled(tokenizer):
    sentences = TaggedSentences([["Anna", "Baker", "lives"]], [["B-PER", "I-PER", "O"]])
    encoded = encode_sentences(tokenizer, sentences, IDS, 32)
    assert subwords(tokenizer, encoded) == ["[CLS]", "anna", "b", "##a", "##k", "##e", "##r", "lives", "[SEP]"]
    assert encoded.columns["labels"] == [[IGNORED, 1, 2, *[IGNORED] * 4, 0, IGNORED]]
    assert encoded.columns["attention_mask"] == [[1] * 9]
    assert encoded.coverage == Coverage(examples=1, words=3, subwords=7)


@given(rows=SENTENCES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tags_are_recovered_from_the_first_subwords_without_truncation(tokenizer, rows):
    words = [[word for word, _ in row] for row in rows]
    tags = [[tag for _, tag in row] for row in rows]
    encoded = encode_sentences(tokenizer, TaggedSentences(words, tags), IDS, 512)
    names = list(IDS)
    assert [[names[i] for i in labels if i != IGNORED] for labels in encoded.columns["labels"]] == tags
    assert list(map(len, encoded.columns["labels"])) == list(map(len, encoded.columns["input_ids"]))
    count = encoded.coverage
    assert (count.examples, count.words, count.truncated_words, count.truncated_examples) == (
        len(rows),
        sum(map(len, words)),
        0,
        0,
    )
    assert count.subwords == sum(len(ids) - 2 for ids in encoded.columns["input_ids"])


@given(rows=SENTENCES, max_length=st.integers(3, 40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_truncated_is_what_is_missing(tokenizer, rows, max_length):
    words = [[word for word, _ in row] for row in rows]
    tags = [[tag for _, tag in row] for row in rows]
    whole = encode_sentences(tokenizer, TaggedSentences(words, tags), IDS, 512)
    truncated = encode_sentences(tokenizer, TaggedSentences(words, tags), IDS, max_length)
    for long, short in zip(whole.columns["labels"], truncated.columns["labels"], strict=True):
        assert len(short) == min(len(long), max_length)
        assert short[:-1] == long[: len(short) - 1]
    kept = sum(label != IGNORED for labels in truncated.columns["labels"] for label in labels)
    assert truncated.coverage.truncated_words == truncated.coverage.words - kept
    assert truncated.coverage.truncated_examples == sum(len(ids) > max_length for ids in whole.columns["input_ids"])
    assert truncated.coverage.subwords == whole.coverage.subwords


def test_unknown_words_are_counted(tokenizer):
    # An unknown letter makes a word unknown; of a lone zero-width space nothing remains at all.
    sentences = TaggedSentences([["Anna", "қала", "\u200b", "lives"]], [["B-PER", "O", "O", "O"]])
    encoded = encode_sentences(tokenizer, sentences, IDS, 32)
    assert subwords(tokenizer, encoded) == ["[CLS]", "anna", "[UNK]", "lives", "[SEP]"]
    assert encoded.columns["labels"] == [[IGNORED, 1, 0, 0, IGNORED]]
    assert encoded.coverage == Coverage(examples=1, words=4, subwords=3, unknown_words=2)


def test_texts_keep_one_label_and_count_words_between_white_space(tokenizer):
    texts = LabelledTexts(["The film,  was\tgood!", "қала bad", ""], ["1", "0", "0"])
    encoded = encode_texts(tokenizer, texts, {"0": 0, "1": 1}, 32)
    assert subwords(tokenizer, encoded) == ["[CLS]", "the", "film", ",", "was", "good", "!", "[SEP]"]
    assert encoded.columns["labels"] == [1, 0, 0]
    assert encoded.coverage == Coverage(examples=3, words=6, subwords=8, unknown_words=1)


def test_truncated_texts_lose_words(tokenizer):
    texts = LabelledTexts(["the film was bad in rome", "good"], ["0", "1"])
    encoded = encode_texts(tokenizer, texts, {"0": 0, "1": 1}, 5)
    assert subwords(tokenizer, encoded) == ["[CLS]", "the", "film", "was", "[SEP]"]
    assert encoded.coverage == Coverage(examples=2, truncated_examples=1, words=7, truncated_words=3, subwords=7)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A tokenizer as RoBERTa's, saved as it is by default: no space before the first word."""
    folder = tmp_path_factory.mktemp("models") / "bytes"
    folder.mkdir()
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        [" Anna lives in Rome"] * 9, vocab_size=290, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    trained.save_model(str(folder))
    RobertaTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")).save_pretrained(folder)
    RobertaConfig(vocab_size=290, max_position_embeddings=66).save_pretrained(folder)
    return str(folder)


def test_byte_level_tokenizers_read_each_word_with_its_space(byte_level):
    tokenizer = load_tokenizer(find_model(byte_level, "ner"), "ner")
    sentences = TaggedSentences([["Anna", "lives", "қ"]], [["B-PER", "O", "O"]])
    encoded = encode_sentences(tokenizer, sentences, IDS, 32)
    assert subwords(tokenizer, encoded)[1] == "ĠAnna"
    assert [label for label in encoded.columns["labels"][0] if label != IGNORED] == [1, 0, 0]
    assert encoded.coverage.unknown_words == 0
    assert encoded.coverage.words == 3


def test_byte_level_texts_assign_each_subword_to_its_word(byte_level):
    tokenizer = load_tokenizer(find_model(byte_level, "classification"), "classification")
    encoded = encode_texts(tokenizer, LabelledTexts(["Anna lives in Rome"], ["1"]), {"1": 0}, 4)
    assert len(encoded.columns["input_ids"][0]) == 4
    assert encoded.coverage.words == 4
    assert encoded.coverage.truncated_words > 0
    assert encoded.coverage.unknown_words == 0


def test_a_tokenizer_that_cannot_take_single_words_is_refused(byte_level, monkeypatch):
    source = find_model(byte_level, "ner")
    load = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda location, **options: load(location))
    with pytest.raises(RequestError, match="cannot tokenize single words"):
        load_tokenizer(source, "ner")


def test_coverage_adds_up_and_divides():
    both = Coverage(2, 1, 10, 3, 15, 1) + Coverage(2, 0, 10, 0, 10, 4)
    assert both == Coverage(4, 1, 20, 3, 25, 5)
    assert (
        both.subwords_per_word,
        both.unknown_word_share,
        both.truncated_word_share,
        both.truncated_example_share,
    ) == (
        1.25,
        0.25,
        0.15,
        0.25,
    )
    assert Coverage().subwords_per_word == 0.0


@pytest.mark.parametrize(
    ("coverage", "kind", "sentences"),
    [
        (Coverage(examples=9, words=100, subwords=120, unknown_words=10), "ner", []),
        (Coverage(examples=9, words=100, subwords=120, unknown_words=11), "ner", ["11% of the words contain"]),
        (Coverage(examples=9, words=100, subwords=401), "ner", ["4.0 subwords"]),
        (Coverage(examples=9, words=100, subwords=401), "classification", []),
        (Coverage(examples=9, truncated_examples=1, words=100, truncated_words=1, subwords=120), "ner", []),
        (
            Coverage(examples=9, truncated_examples=1, words=100, truncated_words=2, subwords=120),
            "ner",
            ["2.0% of the words (2)"],
        ),
    ],
)
def test_warnings_about_the_coverage(coverage, kind, sentences):
    given_sentences = coverage.warnings(kind, 128)
    assert len(given_sentences) == len(sentences)
    assert all(part in sentence for part, sentence in zip(sentences, given_sentences, strict=True))
