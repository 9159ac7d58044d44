"""All errors that `cifar_core` raises on purpose.

A message names the value given, what is allowed and what to do, so that a page or a terminal can show it
unchanged. `exit_status` is that of the command line: 2 for bad arguments, 1 for everything else.
"""


class CifarLabError(Exception):
    """Base class of all expected failures."""

    exit_status = 1


class ConfigError(CifarLabError, ValueError):
    """A setting, a model's name, a preset's name or an option is not allowed."""

    exit_status = 2


class DataError(CifarLabError):
    """Images are missing, damaged, or of another dataset."""


class DataNotFoundError(DataError, FileNotFoundError):
    """No dataset at the places searched."""


class UnknownDatasetError(DataNotFoundError):
    """This machine knows no dataset of that name."""

    exit_status = 2


class UnsafePickleError(DataError):
    """A batch contains something else than data, such as code; it was refused."""


class DownloadError(DataError):
    """The file could not be downloaded, or is not the expected one."""


class StoreError(CifarLabError):
    """The store cannot be opened, read or written."""


class StoreVersionError(StoreError):
    """The store was written by a newer release than this one."""


class StoreDamagedError(StoreError):
    """The store's database is damaged or missing; `cifar-lab rebuild` makes a new one of what is left."""


class RunNotFoundError(StoreError, LookupError):
    """No run, search or artifact of that name."""

    exit_status = 2


class RunStateError(StoreError):
    """The run's state does not allow the operation."""


class ArchiveError(CifarLabError):
    """A backup or packed run is damaged, of another program, or cannot be made; nothing was changed."""


class TrainingError(CifarLabError):
    """Training failed."""


class DivergedError(TrainingError):
    """The loss is not finite."""


class ResumeError(TrainingError):
    """No usable checkpoint to resume from."""


class ExportError(CifarLabError):
    """A model could not be exported, or the exported file computes something else."""


class BenchError(CifarLabError):
    """A speed measurement failed."""


class ModelFileError(CifarLabError):
    """A model file is damaged, or contains more than layers and weights."""


class ImageError(CifarLabError, ValueError):
    """An image cannot be read, or is too large to be read safely."""

    exit_status = 2
