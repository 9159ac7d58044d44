"""Every error that `cifar_core` raises on purpose, on one screen.

A message names what was given, what is allowed and what to do, so that a page or a terminal can
show it as it stands. `exit_status` is what the command line exits with: 2 for bad arguments,
1 for everything else.
"""


class CifarLabError(Exception):
    """Base of all expected failures."""

    exit_status = 1


class ConfigError(CifarLabError, ValueError):
    """A setting, a model's name, a preset's name or an option is not allowed."""

    exit_status = 2


class DataError(CifarLabError):
    """CIFAR-10 is missing, damaged, or not what it claims to be."""


class DataNotFoundError(DataError, FileNotFoundError):
    """No dataset where one was looked for."""


class UnsafePickleError(DataError):
    """A batch asks to run code; it was refused."""


class DownloadError(DataError):
    """The archive could not be fetched, or is not the official one."""


class StoreError(CifarLabError):
    """The store cannot be opened, read or written."""


class StoreVersionError(StoreError):
    """The store was written by a newer release than this one."""


class RunNotFoundError(StoreError, LookupError):
    """No run, search or artifact by that name."""

    exit_status = 2


class RunStateError(StoreError):
    """The run is in a state that does not allow what was asked."""


class ArchiveError(CifarLabError):
    """A backup or a packed run is damaged, not ours, or not possible; nothing of it was taken."""


class TrainingError(CifarLabError):
    """Training could not go on."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""


class ResumeError(TrainingError):
    """No usable checkpoint to resume from."""


class ExportError(CifarLabError):
    """A model could not be written in another format, or the copy does not agree with it."""


class BenchError(CifarLabError):
    """A measurement of speed could not be made."""


class ModelFileError(CifarLabError):
    """A file of a trained network that is damaged, or asks for more than to be computed with."""


class ImageError(CifarLabError, ValueError):
    """A picture that cannot be read, or is too large to be read safely."""

    exit_status = 2
