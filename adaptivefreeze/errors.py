"""The one error that a person caused and can mend."""


class RequestError(ValueError):
    """The request was wrong: one sentence that says what was given, what would be right and what to do.

    On the command line it ends in that sentence on standard error and exit status 2.
    """


class StudyFailed(RuntimeError):
    """A study in which no training ended, so that there is nothing to show; the message says why."""
