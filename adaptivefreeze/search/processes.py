"""Local processes that share one search, one a GPU where there are several."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

import torch


def run_workers(work: Callable[[], None], count: int) -> None:
    """Run `work` in `count` processes, to the end of all; `work` must be picklable.

    With several GPUs each process sees one of them, in turn; the cores are shared out between the processes. A
    process that dies takes nothing with it but its present trial, which whoever is left runs again.
    """
    context = multiprocessing.get_context("spawn")  # a forked child cannot use CUDA
    gpus = torch.cuda.device_count()
    threads = max(1, torch.get_num_threads() // count)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
    children = [
        context.Process(
            target=_run, args=(work, threads, names[index % gpus] if gpus > 1 else None), name=f"worker {index + 1}"
        )
        for index in range(count)
    ]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join()
    finally:
        for child in children:
            if child.is_alive():
                child.terminate()
                child.join()


def _run(work: Callable[[], None], threads: int, gpu: str | None) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA has not been touched in this process
    torch.set_num_threads(threads)
    try:
        work()
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the parent says what is kept
