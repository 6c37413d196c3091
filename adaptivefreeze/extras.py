"""Optional dependencies: the modules of each extra, and the message for an extra that is not installed."""

from importlib.util import find_spec

_SEARCH = ("optuna", "pydantic", "scipy", "sklearn", "sqlalchemy")

EXTRAS = {
    "search": _SEARCH,
    "peft": ("peft",),
    "lab": (
        *_SEARCH,
        "datasets",
        "evaluate",
        "jinja2",
        "markupsafe",
        "matplotlib",
        "pyarrow",
        "rich",
        "seqeval",
        "typer",
    ),
}
"""The modules that each extra provides and that the package imports."""


def missing_extra(extra: str, feature: str) -> str | None:
    """Return a sentence that says how to install `extra`, or None when all its modules are installed.

    Args:
        extra: A key of `EXTRAS`.
        feature: What needs the extra; the subject of the sentence.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if not missing:
        return None
    return (
        f"{feature} needs the {extra} extra ({', '.join(missing)} not installed): "
        f'run pip install "adaptivefreeze[{extra}]".'
    )
