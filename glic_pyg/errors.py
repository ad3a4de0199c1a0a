"""What a user can mend, as opposed to a bug."""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec


class UserError(Exception):
    """Something that the user can mend; the message is one line: `Expected X (got Y)`.

    The command line prints it and exits with status 2. Anything else but an `OSError` keeps its traceback.
    """


class UsageError(UserError, ValueError):
    """Arguments that do not go together."""


class FileError(UserError, ValueError):
    """A file or folder that is missing, empty, in the way, or not what it should be."""


class PackageError(UserError, ImportError):
    """A package that is needed and not installed, or one without a needed part."""


def interruption(error: BaseException) -> BaseException | None:
    """Return the Ctrl-C or SIGTERM (`SystemExit`) that an error came of, if it did.

    What is interrupted may fail in a way of its own: it releases a lock that it was about to take, or was
    compiled code, which Python blames for an exception that it knows nothing of.
    """
    reason: BaseException | None = error
    while reason is not None and not isinstance(reason, KeyboardInterrupt | SystemExit):
        reason = reason.__cause__ or reason.__context__
    return reason


def require(*packages: str, extra: str, purpose: str) -> AbstractContextManager[None]:
    """Ask for packages that an extra of this one brings; none of them is imported.

    Args:
        packages: Their names in Python.
        extra: The extra, one of pyproject.toml's.
        purpose: What they are needed for, for the message.

    Returns:
        A context in which nothing happens, for a block of imports that may follow.

    Raises:
        PackageError: one is not installed.
    """
    for package in packages:
        try:
            found = find_spec(package) is not None
        except ImportError:
            found = False
        if not found:
            raise PackageError(f"Expected package {package}, for {purpose}: pip install 'glic_pyg[{extra}]'")
    return nullcontext()
