"""A run's numbers and pictures as TensorBoard shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from mvcseg.data.files import shown
from mvcseg.errors import DataError, MissingExtraError


class RunWriter:
    """Writes event files into a folder, for ``tensorboard --logdir FOLDER``.

    Args:
        folder: made if missing. A resumed run writes beside the files it wrote before.
        done: steps already taken: what earlier files say of later ones, taken before the run was stopped, is no
            longer shown; with 0 that is all of it.

    Raises:
        MissingExtraError: the package tensorboard is not installed.
        DataError: the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with RunWriter(tempfile.mkdtemp()) as writer:
        ...     writer.scalars(1, {"loss": 0.7, "loss_masked": None})
    """

    def __init__(self, folder: str | os.PathLike[str], *, done: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError.for_package("tensorboard", extra="train") from error
        self._folder = Path(folder)
        try:
            self._writer = SummaryWriter(self._folder, purge_step=done + 1)
        except OSError as error:
            raise self._refused(error) from error

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """One point of every curve; a value that is None has none.

        Raises:
            DataError: the disk refuses.
        """
        try:
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            raise self._refused(error) from error

    def picture(self, step: int, path: str | os.PathLike[str], *, name: str = "strip") -> None:
        """A picture from a file.

        Raises:
            DataError: the picture cannot be read, or the disk refuses.
        """
        from PIL import Image

        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise DataError(f"{shown(path)}: expected a picture, got {error}") from error
        try:
            self._writer.add_image(name, pixels, step, dataformats="HWC")
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Put everything on the disk.

        Raises:
            DataError: the disk refuses.
        """
        try:
            self._writer.close()
        except OSError as error:
            raise self._refused(error) from error

    def __enter__(self) -> RunWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _refused(self, error: OSError) -> DataError:
        return DataError(f"{shown(self._folder)}: cannot be written: {error.strerror or error}")
