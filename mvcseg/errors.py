"""The errors this library raises: one tree, each also the builtin a caller would expect.

Every message names the argument or file, what was expected, what was got and, where there is one, the fix.
"""

from __future__ import annotations


class MvcsegError(Exception):
    """Root of every error raised on purpose by this library."""


class ShapeError(MvcsegError, ValueError):
    """A tensor has the wrong number of axes, or sizes that do not agree with another argument."""


class DTypeError(MvcsegError, TypeError):
    """A tensor or argument has the wrong type."""


class ConfigError(MvcsegError, ValueError):
    """A number, name or choice is outside what the function or configuration allows."""


class UsageError(ConfigError):
    """Arguments of a command that do not go together; the command line exits with status 2."""


class CheckpointError(MvcsegError, RuntimeError):
    """A checkpoint cannot be read, or does not fit the model it is loaded into."""


class DataError(MvcsegError, ValueError):
    """A file or folder is missing, broken or contradicts another; the message names it."""


class TrainingError(MvcsegError, ArithmeticError):
    """A training run cannot go on: a loss or gradient is NaN or infinite."""


class VLMAnswerError(MvcsegError, ValueError):
    """A vision-language model gave no usable answer.

    Attributes:
        answer: the text it did give, possibly empty.
    """

    def __init__(self, message: str, *, answer: str = "") -> None:
        super().__init__(message)
        self.answer = answer


class VLMUnavailableError(VLMAnswerError):
    """A vision-language model cannot be asked: nobody answers, or the key, the model or every question is refused.

    Says something about the next question too; after a few of these in a row `correct_labels` asks no more.
    """


class MissingExtraError(MvcsegError, ImportError):
    """An optional package, or a system library that a package needs, is not installed.

    Attributes:
        extra: the extra to install, ``pip install "mvcseg[extra]"``; empty for a system library.
    """

    def __init__(self, message: str, *, extra: str = "") -> None:
        super().__init__(message)
        self.extra = extra

    @classmethod
    def for_package(cls, package: str, *, extra: str) -> MissingExtraError:
        """The error for a package that an extra of this library brings."""
        return cls(f'{package} is not installed: pip install "mvcseg[{extra}]"', extra=extra)
