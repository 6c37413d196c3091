"""Half precision that a CPU only emulates is reported before the first step."""

import pytest
import torch
from training import make_trainer, tiny_bert

from adaptivefreeze import FreezeCallback
from adaptivefreeze.trainer import precision


@pytest.mark.parametrize(
    ("flags", "bf16", "supported"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16", True, True),
        ("flags\t\t: fpu avx512f", True, False),
        ("Features\t: fp asimd bf16", True, True),
        ("Features\t: fp asimd", True, False),
        ("flags\t\t: fpu avx512f", False, True),
        ("", True, True),
    ],
)
def test_bfloat16(tmp_path, monkeypatch, caplog, flags, bf16, supported):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "cpuinfo")
    make_trainer(tiny_bert(), tmp_path, [FreezeCallback("bottom-up:2")], max_steps=2, bf16=bf16).train()
    assert caplog.text.count("This CPU has no bfloat16 instructions") == (not supported)


def test_float16(tmp_path, caplog):
    model = tiny_bert().to(torch.float16)
    make_trainer(model, tmp_path, [FreezeCallback("bottom-up:2")], max_steps=2).train()
    assert caplog.text.count("float16 is slow on a CPU") == 1
