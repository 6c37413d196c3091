"""Reads a data set from the hub, through ``datasets``: its splits, and which columns hold what."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError
from .corpus import (
    SPLITS,
    Corpus,
    Kind,
    LabelledTexts,
    TaggedSentences,
    is_iob,
    labelled_corpus,
    tagged_corpus,
)
from .tables import class_name

_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}
# Names to prefer where several columns are of the right type, in this order.
_WORDS = ("tokens", "words")
_TAGS = ("ner_tags", "tags", "labels")
_TEXT = ("text", "sentence", "content")
_CLASS = ("label", "labels")


def read_hub(
    name: str,
    *,
    kind: Kind | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Corpus:
    """The corpus called ``name`` on the hub; ``name:config`` picks one of its configurations.

    Columns are found by their type (a list of strings and a list of tags: NER; a string and a class:
    classification), by the usual names where several would do, or named. Raises RequestError where the hub
    cannot be reached or has no such set, for a missing split, for columns that cannot be told apart, and for
    tags or classes that are missing or of another scheme.
    """
    splits = _load(name, revision)
    features = splits["train"].features
    kind = kind or _guess_kind(name, features, text_column, label_column)
    if kind == "ner":
        text = _column(name, features, text_column, _is_words, _WORDS, "words (lists of strings)", "text")
        tags = _column(name, features, label_column, _is_tags, _TAGS, "tags (lists of labels)", "label", (text,))
        sentences = {
            split: _sentences(f"the {split} split of {name}", rows, text, tags) for split, rows in splits.items()
        }
        return tagged_corpus(name, sentences)
    text = _column(name, features, text_column, _is_text, _TEXT, "texts (strings)", "text")
    label = _column(name, features, label_column, _is_class, _CLASS, "classes", "label", (text,))
    texts = {split: _texts(f"the {split} split of {name}", rows, text, label) for split, rows in splits.items()}
    return labelled_corpus(name, texts, order=getattr(features[label], "names", None))


def _load(name: str, revision: str | None) -> dict[str, Any]:
    import datasets

    path, _, config = name.partition(":")
    try:
        found = datasets.load_dataset(path, config or None, revision=revision)
    except FileNotFoundError:
        raise RequestError(
            f"{path} is neither a folder here nor a data set that the hub shows; check the name"
            f"{' and the revision' if revision else ''}, or log in if it is private."
        ) from None
    except ConnectionError:
        raise RequestError(
            f"{path} is not a folder here, and the hub cannot be reached; give a folder, or connect and try again."
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if "scripts are no longer supported" in str(error):
            raise RequestError(
                f"{path} is a script, which is not run; the hub's own copy of its data may be had "
                "with the revision refs/convert/parquet."
            ) from None
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise RequestError(f"The hub data set {name} could not be loaded: {reason}.") from None
    splits = {}
    for split in SPLITS:
        names = [known for known in _SPLIT_NAMES[split] if known in found]
        if not names:
            raise RequestError(
                f"{name} has no {split} split, only {', '.join(found)}; "
                "save it as a folder with train, validation and test."
            )
        splits[split] = found[names[0]]
    return splits


def _guess_kind(name: str, features: Mapping[str, Any], text: str | None, label: str | None) -> Kind:
    if text is not None and text in features:
        return "ner" if _is_words(features[text]) else "classification"
    if label is not None and label in features:
        return "ner" if _is_tags(features[label]) else "classification"
    if any(map(_is_words, features.values())) and any(map(_is_tags, features.values())):
        return "ner"
    if any(map(_is_text, features.values())):
        return "classification"
    raise RequestError(
        f"{name} has neither words with tags nor texts with classes (its columns: {', '.join(features)}); "
        "take another data set, or save it as a folder."
    )


def _column(
    name: str,
    features: Mapping[str, Any],
    asked: str | None,
    fits: Any,
    usual: Sequence[str],
    what: str,
    option: str,
    taken: Sequence[str] = (),
) -> str:
    if asked is not None:
        if asked not in features or not fits(features[asked]):
            state = "holds no such thing" if asked in features else "is not there"
            raise RequestError(
                f"The {option} column of {name} should hold {what}, but {asked!r} {state}; "
                f"its columns are {', '.join(features)}."
            )
        return asked
    candidates = [column for column, feature in features.items() if fits(feature) and column not in taken]
    for column in usual:
        if column in candidates:
            return column
    if len(candidates) == 1:
        return candidates[0]
    raise RequestError(
        f"{name} has {len(candidates) or 'no'} columns with {what} ({', '.join(candidates or features)}); "
        f"name the {option} column."
    )


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def _is_class(feature: Any) -> bool:
    # ClassLabel is an int64 too.
    return _is_text(feature) or str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool"))


def _is_words(feature: Any) -> bool:
    return _is_text(_item(feature))


def _is_tags(feature: Any) -> bool:
    return _is_text(_item(feature)) or hasattr(_item(feature), "names")


def _item(feature: Any) -> Any:
    """What a list feature holds (``List``, ``LargeList``), or None for one that is no list."""
    return getattr(feature, "feature", None)


def _sentences(where: str, rows: Any, text: str, label: str) -> TaggedSentences:
    words, given = rows.with_format(None)[text][:], rows.with_format(None)[label][:]
    names = getattr(_item(rows.features[label]), "names", None)
    tags = []
    for number, (sentence, marks) in enumerate(zip(words, given, strict=True), start=1):
        if sentence is None or marks is None:
            raise RequestError(f"Example {number} of {where} has no {text if sentence is None else label}.")
        if None in sentence or len(sentence) != len(marks):
            raise RequestError(
                f"Example {number} of {where} has {len(sentence)} words and {len(marks)} tags; "
                "each word needs one tag and a text."
            )
        tags.append([_named(mark, names, f"Example {number} of {where}: the tag") for mark in marks])
        for tag in tags[-1]:
            if not is_iob(tag):
                raise RequestError(
                    f"Example {number} of {where}: the tag {tag!r} is not IOB; it should be O, B-CLASS or I-CLASS "
                    "(another label column may hold such tags)."
                )
    return TaggedSentences(words, tags)


def _texts(where: str, rows: Any, text: str, label: str) -> LabelledTexts:
    texts, given = rows.with_format(None)[text][:], rows.with_format(None)[label][:]
    names = getattr(rows.features[label], "names", None)
    if None in texts:
        raise RequestError(f"Example {texts.index(None) + 1} of {where} has no {text}; every example needs one.")
    classes = [
        _named(mark, names, f"Example {number} of {where}: the {label}") for number, mark in enumerate(given, start=1)
    ]
    return LabelledTexts(texts, classes)


def _named(mark: object, names: Sequence[str] | None, where: str) -> str:
    """A label as text; the hub writes -1 for the labels that a test split withholds."""
    if names is not None and isinstance(mark, int):
        if not 0 <= mark < len(names):
            raise RequestError(f"{where} is {mark}, which stands for no label; take a split whose labels are public.")
        return names[mark]
    return class_name(mark, where)
