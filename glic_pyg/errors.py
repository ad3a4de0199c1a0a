"""What a user can mend, as opposed to a bug."""


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
