"""A script that uses the library as an installation without extras provides it; run by the tests of the core."""

import sys
from pathlib import Path

from training import make_trainer, moved, tiny_bert, weights

import adaptivefreeze
from adaptivefreeze import BottomUp, FreezeCallback, ValidationDriven
from adaptivefreeze.__main__ import main


def train(callback: FreezeCallback, folder: Path, **settings: object) -> set[str]:
    """Train a tiny BERT under `callback`; return the names of the parameters that changed."""
    model = tiny_bert()
    before = weights(model)
    make_trainer(model, folder, [callback], **settings).train()
    return moved(before, weights(model))


def check(folder: Path) -> None:
    static = FreezeCallback(BottomUp(2), cache=True)
    changed = train(static, folder)
    assert changed
    assert not any("embeddings" in name or "layer.0." in name or "layer.1." in name for name in changed)
    assert static.cache is not None
    assert static.cache.stats.hits > 0

    adaptive = FreezeCallback(ValidationDriven(metric="loss", cooldown=0))
    assert train(adaptive, folder, num_train_epochs=4, eval_strategy="epoch")
    assert len(list(adaptive.timeline)) > 1

    message = ""
    try:
        adaptivefreeze.search_depth  # noqa: B018
    except ImportError as error:
        message = str(error)
    assert 'pip install "adaptivefreeze[search]"' in message


if __name__ == "__main__":
    check(Path(sys.argv[1]))
    sys.argv = ["adaptivefreeze", "compare"]
    main()
