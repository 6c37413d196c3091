"""A script that searches a depth as an installation with the `search` extra alone provides it."""

import sys

from training import make_trainer, tiny_bert

from adaptivefreeze import search_depth

if __name__ == "__main__":
    found = search_depth(
        lambda seed: make_trainer(tiny_bert(seed), sys.argv[1], num_train_epochs=1),
        metric="loss",
        greater_is_better=False,
        depths=(0, 2),
        output_dir=f"{sys.argv[1]}/study",
    )
    print("best", found.best)
