"""Fingerprints are equal for equal weights, and do not change between versions: rows and studies are stored by them."""

import hashlib

import torch

from adaptivefreeze.model.fingerprint import model_fingerprint, update_digest


def test_stored_fingerprints_stay_valid():
    layer = torch.nn.Linear(20, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(200.0).view(10, 20))
        layer.bias.fill_(-0.5)
    assert model_fingerprint(layer) == "ebf348cfb15b8fc8"
    assert model_fingerprint(layer.bfloat16()) == "1efcf48d403119b3"


def test_a_tensor_is_hashed_by_its_bytes_in_c_order():
    values = torch.arange(6, dtype=torch.int16).view(2, 3)
    digest = hashlib.sha256()
    update_digest(digest, "label", values.T)
    assert digest.digest() == hashlib.sha256(b"label" + values.T.contiguous().numpy().tobytes()).digest()


def test_empty_and_scalar_parameters_have_a_fingerprint():
    module = torch.nn.Module()
    module.empty = torch.nn.Parameter(torch.empty(0, 3))
    before = model_fingerprint(module)
    module.scalar = torch.nn.Parameter(torch.tensor(1.0))
    assert model_fingerprint(module) != before


def test_the_fingerprint_covers_the_last_value_of_a_large_table():
    # The embeddings of BERT-base: more values than float32 counts exactly.
    table = torch.nn.Embedding.from_pretrained(torch.zeros(30522, 768, dtype=torch.bfloat16))
    before = model_fingerprint(table)
    table.weight[-1, -1] = 1
    assert model_fingerprint(table) != before
