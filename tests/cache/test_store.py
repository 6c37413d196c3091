"""Rows in memory and on disk: each row is returned as stored, within the budget, and never with altered values."""

import dataclasses
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptivefreeze import PrefixCache, RequestError
from adaptivefreeze.cache import CacheStats
from adaptivefreeze.cache.disk import DiskRows
from adaptivefreeze.cache.store import INDEX_BYTES, RowStore, Tiers


def key(number):
    return number.to_bytes(16, "big")


def row(number, tokens, width=4):
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(number))


operations = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(2, 5)), max_size=40)


@given(operations, st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_a_store_is_a_dictionary(puts, boundary):
    store, expected = RowStore(10**9), {}
    for number, tokens, at in puts:
        assert store.put(key(number), at, row(number + at, tokens))
        expected[number] = (at, row(number + at, tokens))
    store.drop_above(boundary)
    expected = {n: v for n, v in expected.items() if v[0] <= boundary}
    assert len(store) == len(expected)
    for number, (at, value) in expected.items():
        assert store.boundary(key(number)) == at
        assert torch.equal(store.get(key(number)), value)


def test_tiers_fill_the_first_store_first():
    near, far = RowStore(10_000), RowStore(10**6)
    tiers = Tiers([near, far])
    values = {n: row(n, 8, 32) for n in range(100)}
    assert all(tiers.put(key(n), 2, value) for n, value in values.items())
    assert 0 < len(near) < len(far)
    assert len(tiers) == 100
    assert tiers.refused == 0
    assert all(torch.equal(tiers.get(key(n)), value) for n, value in values.items())
    for number in values:  # replaced in the same store
        assert tiers.put(key(number), 3, values[number] + 1)
    assert len(tiers) == 100
    assert tiers.boundary(key(0)) == tiers.boundary(key(99)) == 3
    assert torch.equal(tiers.get(key(99)), values[99] + 1)
    assert tiers.put(key(0), 3, row(5, 9, 32))  # longer than its slot: it moves
    assert torch.equal(tiers.get(key(0)), row(5, 9, 32))
    assert tiers.drop_above(2) == 100
    with pytest.raises(KeyError):
        tiers.get(key(1))


def test_space_of_dropped_rows_is_reused():
    store = RowStore(10**6)
    for number in range(200):
        assert store.put(key(number), 3, row(number, 8, 32))
    before = store.used_bytes
    store.drop_above(2)
    for number in range(200, 400):
        assert store.put(key(number), 2, row(number, 8, 32))
    assert store.used_bytes == before


@pytest.mark.parametrize("budget", [10_000, 100_000, 1_000_000])
def test_rows_beyond_the_budget_are_not_kept(budget):
    store = RowStore(budget)
    kept = sum(store.put(key(n), 2, row(n, 8, 32)) for n in range(3000))
    assert kept < 3000
    assert kept == len(store)
    assert store.refused == 3000 - kept
    assert 0.6 * budget < kept * (8 * 32 * 4 + INDEX_BYTES) <= store.used_bytes <= budget


def test_rows_of_several_dtypes_and_widths():
    store = RowStore(10**7)
    rows = [row(1, 3), row(2, 3).bfloat16(), row(3, 3, 7), row(4, 0)]
    for number, value in enumerate(rows):
        store.put(key(number), 2, value)
    assert all(torch.equal(store.get(key(n)), value) for n, value in enumerate(rows))


@pytest.mark.slow
def test_a_million_rows_are_held_once():
    """10^6 rows of 32 tokens: resident memory grows by the rows and the index, not by a second copy of the data."""
    code = """
import psutil, torch
from adaptivefreeze.cache.store import RowStore
store, one = RowStore(8 * 2**30), torch.ones(32, 16)
before = psutil.Process().memory_info().rss
for n in range(10**6):
    store.put(n.to_bytes(16, "big"), 3, one)
print(len(store), store.used_bytes, psutil.Process().memory_info().rss - before)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    rows, claimed, resident = map(int, output.split())
    data = 10**6 * 32 * 16 * 4
    assert rows == 10**6
    assert resident <= claimed <= 1.2 * data


def test_disk_rows_come_back_in_a_later_run(tmp_path):
    first = DiskRows(tmp_path)
    values = {n: row(n, n % 5) for n in range(20)}
    for number, value in values.items():
        assert first.put("aa", key(number), value)
    assert not first.put("aa", key(3), values[3])  # append-only: a stored row is not written again
    assert torch.equal(first.get("aa", key(7)), values[7])
    first.close()
    later = DiskRows(tmp_path)
    assert all(torch.equal(later.get("aa", key(n)), value) for n, value in values.items())
    assert later.get("bb", key(1)) is None
    assert not later.has("aa", key(99))
    half = row(1, 3).bfloat16()
    later.put("aa", key(99), half)
    assert torch.equal(later.get("aa", key(99)), half)
    later.close()


def written(folder, count=10):
    disk = DiskRows(folder)
    for number in range(count):
        disk.put("aa", key(number), row(number, 4))
    disk.close()
    return next(folder.glob("*.rows"))


def test_an_altered_row_is_never_returned(tmp_path, caplog):
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    disk = DiskRows(tmp_path)
    assert disk.get("aa", key(9)) is None
    assert "does not match its checksum" in caplog.text
    assert torch.equal(disk.get("aa", key(8)), row(8, 4))


def test_a_truncated_file_is_read_up_to_its_last_whole_row(tmp_path, caplog):
    path = written(tmp_path)
    os.truncate(path, path.stat().st_size - 10)
    disk = DiskRows(tmp_path)
    assert [disk.has("aa", key(n)) for n in range(10)] == [True] * 9 + [False]
    assert "is incomplete" in caplog.text


def test_a_file_of_another_model_is_refused(tmp_path, caplog):
    path = written(tmp_path)
    path.rename(tmp_path / path.name.replace("aa", "bb", 1))
    assert not DiskRows(tmp_path).has("bb", key(1))
    assert "was written for another model" in caplog.text


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"[4]", b"[2]"), (b"[4]", b"[2, 2]"), (b"float32", b"int32"), (b"float32", b"save"), (b'"aa"', b'"ab"')],
)
def test_an_edited_header_is_refused(tmp_path, caplog, before, after):
    path = written(tmp_path)
    data = path.read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))
    assert DiskRows(tmp_path).get("aa", key(1)) is None
    assert "is damaged or was written for another model or version" in caplog.text


@pytest.mark.parametrize(
    "described",
    [
        {"fingerprint": "aa", "dtype": "save", "width": [4]},
        {"fingerprint": "aa", "dtype": "float32", "width": ["4"]},
        {"fingerprint": "aa", "dtype": "float32", "width": [-4]},
        {"fingerprint": "aa", "dtype": "float32", "width": 4},
        {"fingerprint": "aa", "dtype": 3, "width": [4]},
        {"fingerprint": "aa"},
        [],
        "x",
    ],
    ids=str,
)
def test_a_header_of_wrong_types_is_refused_even_with_its_checksum(tmp_path, described):
    text = json.dumps(described).encode()
    header = b"adaptivefreeze rows 2\n" + text + b" %08x\n" % zlib.crc32(text)
    (tmp_path / "aa-1-x.rows").write_bytes(header + b"\x00" * 100)
    assert DiskRows(tmp_path).get("aa", key(1)) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=4)), min_size=1, max_size=3), st.integers(0, 700))
def test_a_file_with_any_bytes_changed_yields_the_row_or_none(tmp_path, edits, length):
    path = written(tmp_path / os.urandom(4).hex())
    data = bytearray(path.read_bytes())
    for place, values in edits:
        data[place : place + len(values)] = values
    path.write_bytes(data[:length] if length > 350 else data)
    disk = DiskRows(path.parent)
    for number in range(10):
        found = disk.get("aa", key(number))
        assert found is None or torch.equal(found, row(number, 4))


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00" * 100, b"adaptivefreeze rows 2\nnot json\n", b"adaptivefreeze rows 2\n" + b"[" * 9000]
)
def test_garbage_is_left_alone(tmp_path, garbage):
    (tmp_path / "aa-1-x.rows").write_bytes(garbage)
    assert not DiskRows(tmp_path).has("aa", key(1))
    assert (tmp_path / "aa-1-x.rows").read_bytes() == garbage


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full to simulate a full disk")
def test_a_full_disk_only_ends_writing(tmp_path, caplog):
    disk = DiskRows(tmp_path)
    disk.put("aa", key(0), row(0, 4))
    file = disk._files[0]
    file.writer.close()
    file.writer = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    assert not disk.put("aa", key(1), row(1, 4))
    assert not disk.put("aa", key(2), row(2, 4))
    assert caplog.text.count("no longer written") == 1
    assert torch.equal(disk.get("aa", key(0)), row(0, 4))


def test_a_folder_that_cannot_be_created_is_logged_and_ignored(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    disk = DiskRows(tmp_path / "file" / "folder")
    assert "no longer written" in caplog.text
    assert not disk.put("aa", key(0), row(0, 4))
    assert disk.get("aa", key(0)) is None


def test_two_processes_share_a_folder(tmp_path):
    code = """
import sys, torch
from adaptivefreeze.cache import CacheStats
from adaptivefreeze.cache.disk import DiskRows
disk, first = DiskRows(sys.argv[1]), int(sys.argv[2])
for n in range(first, first + 300):
    disk.put("aa", n.to_bytes(16, "big"), torch.full((5, 4), float(n)))
disk.close()
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in (0, 200)]
    assert [worker.wait() for worker in workers] == [0, 0]
    disk = DiskRows(tmp_path)
    assert all(torch.equal(disk.get("aa", key(n)), torch.full((5, 4), float(n))) for n in range(500))


@pytest.mark.parametrize(
    ("size", "count"), [("4GiB", 4 * 2**30), ("500 MB", 500 * 10**6), ("4gb", 4 * 10**9), ("1.5KiB", 1536), (7, 7)]
)
def test_sizes(size, count):
    assert PrefixCache(memory=size).state.budget == count


@pytest.mark.parametrize("size", ["", "many", "4 XB", "-1GB", "1..2GB", "infGB", True, -1, 1.5])
def test_an_invalid_budget_is_one_sentence(size):
    with pytest.raises(RequestError, match="memory must be a number of bytes or a size"):
        PrefixCache(memory=size)


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"dropout": -0.1}, {"passes": -1}, {"passes": 1.5}])
def test_other_arguments_are_checked(options):
    with pytest.raises(RequestError, match="must"):
        PrefixCache(**options)


def test_settings_are_immutable_and_compared_by_value():
    cache = PrefixCache(memory="1GiB", dropout=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cache.dropout = 0.2
    assert cache == PrefixCache(memory="1GiB", dropout=0.1) != PrefixCache(memory="1GiB")
    assert cache.stats == CacheStats()
