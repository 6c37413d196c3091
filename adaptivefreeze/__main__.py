"""Entry point of the `adaptivefreeze` command and of `python -m adaptivefreeze`."""

import sys

from .extras import missing_extra


def main() -> None:
    """Run the command line; without the `lab` extra, print how to install it and exit with status 2."""
    sentence = missing_extra("lab", "The adaptivefreeze command")
    if sentence:
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(2)
    from .cli.main import app

    app()


if __name__ == "__main__":
    main()
