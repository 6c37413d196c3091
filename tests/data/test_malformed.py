"""Data files with anything in them: examples, or one sentence that names the file."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptivefreeze.data.conll import read_conll
from adaptivefreeze.data.local import read_folder
from adaptivefreeze.data.tables import read_table
from adaptivefreeze.errors import RequestError

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONLL = st.text(alphabet="aBO-I \t\n\r\u2028\x85\ufeffә🙂", max_size=60)
CSV = st.text(alphabet='ab",\n\r\x00;ә🙂', max_size=40).map(lambda text: f"text,label\n{text}")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4).map(lambda text: f'"{text}"'),
    lambda inner: st.lists(inner.map(str), max_size=3).map(lambda items: f"[{','.join(items)}]"),
    max_leaves=4,
)
JSONL = st.lists(st.tuples(JSON, JSON), max_size=3).map(
    lambda rows: "\n".join(f'{{"text": {text}, "label": {label}}}' for text, label in rows)
)
READERS = {
    ".txt": (read_conll, CONLL),
    ".csv": (lambda path: read_table(path, "text", "label"), CSV),
    ".jsonl": (lambda path: read_table(path, "text", "label"), JSONL),
    ".parquet": (lambda path: read_table(path, "text", "label"), st.just("PAR1")),
}


@pytest.mark.parametrize("suffix", READERS)
def test_a_reader_returns_examples_or_one_sentence(tmp_path, suffix):
    read, texts = READERS[suffix]
    path = tmp_path / f"train{suffix}"

    @FAST
    @given(st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "replace")) | st.text().map(str.encode))
    def check(data):
        path.write_bytes(data)
        try:
            examples = read(path)
        except RequestError as error:
            refused = str(error)
        else:
            refused = ""
            assert len(examples) >= 0
        assert not refused or str(path) in refused

    check()


@pytest.mark.parametrize(
    "line",
    ['{"text": "a", "label": ' + "9" * 5000 + "}", '{"text": ' + "[" * 100_000, "[" * 100_000],
    ids=["digits", "nested value", "nested"],
)
def test_jsonl_that_python_cannot_hold_names_the_line(tmp_path, line):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a", "label": 1}\n' + line + "\n")
    with pytest.raises(RequestError, match=r"train\.jsonl, line 2: not JSON that can be read"):
        read_table(path, "text", "label")


def test_a_csv_field_of_a_megabyte_is_read_or_refused(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(f"text,label\n{'a' * 2**20},x\n")
    with pytest.raises(RequestError, match="line 2: invalid csv: field larger than field limit"):
        read_table(path, "text", "label")


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path, suffix):
    for split in ("train", "valid", "test"):
        os.symlink(tmp_path / "loop", tmp_path / "loop") if not os.path.lexists(tmp_path / "loop") else None
        (tmp_path / f"{split}{suffix}").symlink_to(tmp_path / "loop")
    with pytest.raises(RequestError, match="has no train split"):
        read_folder(tmp_path)
