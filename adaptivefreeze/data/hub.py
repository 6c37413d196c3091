"""Data sets from the Hugging Face hub: their splits, and which columns contain the examples and labels."""

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
# Preferred names if several columns have the right type, in this order.
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
    """Load a corpus from the hub.

    The columns are found by type: a list of strings and a list of tags for NER, a string and a class for
    classification. If several columns have the right type, one with a usual name is chosen.

    Args:
        name: The name of the data set; `name:config` selects one of its configurations.
        kind: The kind of task; None infers it from the columns.
        revision: The revision on the hub.
        text_column: The column of the words or texts.
        label_column: The column of the tags or classes.

    Raises:
        RequestError: The hub cannot be reached or has no such data set, a split is missing, a column is missing or
            ambiguous, or a label is missing or not IOB.
    """
    splits = _load(name, revision)
    features = splits["train"].features
    kind = kind or _infer_kind(name, features, text_column, label_column)
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
    """Load the splits, by our names for them."""
    import datasets

    path, _, config = name.partition(":")
    try:
        found = datasets.load_dataset(path, config or None, revision=revision)
    except FileNotFoundError:
        raise RequestError(
            f"{path} is neither a local folder nor a visible data set on the hub; check the name"
            f"{' and the revision' if revision else ''}, or log in if the data set is private."
        ) from None
    except ConnectionError:
        raise RequestError(
            f"{path} is not a local folder, and the hub cannot be reached; pass a folder, or try again online."
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if "scripts are no longer supported" in str(error):
            raise RequestError(
                f"{path} is defined by a script, and scripts are not run; the hub may provide its data "
                "under the revision refs/convert/parquet."
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


def _infer_kind(name: str, features: Mapping[str, Any], text: str | None, label: str | None) -> Kind:
    """The kind of task that the types of the columns allow."""
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
        "choose another data set, or save it as a folder."
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
    """The column that was asked for, or else the only one of a fitting type, or the first with a usual name."""
    if asked is not None:
        if asked not in features or not fits(features[asked]):
            state = "has another type" if asked in features else "does not exist"
            raise RequestError(
                f"The {option} column of {name} should contain {what}, but {asked!r} {state}; "
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
        f"choose one with --{option}-column."
    )


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def _is_class(feature: Any) -> bool:
    # ClassLabel has dtype int64.
    return _is_text(feature) or str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool"))


def _is_words(feature: Any) -> bool:
    return _is_text(_item(feature))


def _is_tags(feature: Any) -> bool:
    return _is_text(_item(feature)) or hasattr(_item(feature), "names")


def _item(feature: Any) -> Any:
    """The type of the items of a list feature (`List`, `LargeList`), None for other features."""
    return getattr(feature, "feature", None)


def _sentences(where: str, rows: Any, text: str, label: str) -> TaggedSentences:
    """The sentences of one split, with tags as text."""
    words, given = rows.with_format(None)[text][:], rows.with_format(None)[label][:]
    names = getattr(_item(rows.features[label]), "names", None)
    tags = []
    for number, (sentence, marks) in enumerate(zip(words, given, strict=True), start=1):
        if sentence is None or marks is None:
            raise RequestError(f"Example {number} of {where} has no {text if sentence is None else label}.")
        if None in sentence or len(sentence) != len(marks):
            raise RequestError(
                f"Example {number} of {where} has {len(sentence)} words and {len(marks)} tags; "
                "every word must be a string and have one tag."
            )
        tags.append([_named(mark, names, f"Example {number} of {where}: the tag") for mark in marks])
        for tag in tags[-1]:
            if not is_iob(tag):
                raise RequestError(
                    f"Example {number} of {where}: the tag {tag!r} is not IOB; it should be O, B-CLASS or I-CLASS "
                    "(another label column may contain such tags)."
                )
    return TaggedSentences(words, tags)


def _texts(where: str, rows: Any, text: str, label: str) -> LabelledTexts:
    """The texts of one split, with classes as text."""
    texts, given = rows.with_format(None)[text][:], rows.with_format(None)[label][:]
    names = getattr(rows.features[label], "names", None)
    if None in texts:
        raise RequestError(f"Example {texts.index(None) + 1} of {where} has no {text}; every example needs one.")
    classes = [
        _named(mark, names, f"Example {number} of {where}: the {label}") for number, mark in enumerate(given, start=1)
    ]
    return LabelledTexts(texts, classes)


def _named(mark: object, names: Sequence[str] | None, where: str) -> str:
    """A label as text. Data sets on the hub use -1 for withheld labels of a test split."""
    if names is not None and isinstance(mark, int):
        if not 0 <= mark < len(names):
            raise RequestError(f"{where} is {mark}, which is not a label; choose a data set whose labels are public.")
        return names[mark]
    return class_name(mark, where)
