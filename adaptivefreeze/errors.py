"""The errors of the package that a user sees."""


class RequestError(ValueError):
    """A wrong argument or an unsupported model or data set.

    The message is one sentence that says what was given, what is valid, and what to do. The command line prints it on
    standard error and exits with status 2.
    """


class StudyFailed(RuntimeError):
    """A study in which every training run failed, or whose results cannot be written. The message says why."""
