"""`python -m adaptivefreeze` is the `adaptivefreeze` command."""

from .cli.main import main

main()
