"""Users' mistakes, each with what was given, what was expected and what to do next."""

from pathlib import Path


class LexomeError(Exception):
    """Base of every error that a user can cause and mend."""


class UnknownName(LexomeError):
    """A release, family, recipe or option that does not exist."""


class MissingExtra(LexomeError):
    """An optional package is needed for what was asked."""


class InputError(LexomeError):
    """An argument or a record cannot be used as given."""


class FormatError(InputError):
    """A file is not what its name or its use promises.

    Parameters
    ----------
    path
        The file, as the user named it.
    message
        What is wrong and what to do.
    line_1based
        The line, where the format has lines.
    """

    def __init__(self, path: str | Path, message: str, line_1based: int | None = None):
        place = f"{path}" if line_1based is None else f"{path}, line {line_1based}"
        super().__init__(f"{place}: {message}")
        self.path = str(path)
        self.line_1based = line_1based


class UnknownLetters(InputError):
    """Too many letters that the tokenizer does not know."""


class ReferenceMismatch(InputError):
    """A variant's REF allele is not what the genome says."""


class CheckpointError(LexomeError):
    """A checkpoint cannot be found, read or written."""


class CheckpointMismatch(CheckpointError):
    """Keys or shapes of a checkpoint differ from the model's."""


class UnsafeCheckpoint(CheckpointError):
    """A pickle asks for objects that only running its code could build."""


class Offline(CheckpointError):
    """A file has to be downloaded and cannot be."""
