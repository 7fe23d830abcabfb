"""Every error that fgdd-fast raises on purpose.

FgddError                    what was wrong and where, with advice on what to do
├── SettingsError            an option, or a combination of options, that cannot work
├── MissingExtraError        a package of an optional extra is not installed
├── PluginError              what another package offers cannot be used
├── DataError                the data set as a whole: missing, empty, classes without images
│   └── ImageError           one image; the others go on, and this one is listed as skipped
├── BundleError              a model bundle: missing, damaged, or of the wrong role
├── DownloadError            a catalogue model could not be fetched, or is not what it should be
├── EngineError              a runtime could not load or run a model
├── TeacherError             a teacher that does not know these classes, or is no better than chance
├── StoreError               the store of measurements: damaged, locked, or no space
└── OutputError              the distilled data set could not be written

The command line prints these without a traceback and exits with 1.
"""

from __future__ import annotations

from fgdd_engines.errors import (
    BundleError,
    EngineError,
    FgddError,
    MissingExtraError,
    PluginError,
    SettingsError,
)

__all__ = [
    "BundleError",
    "DataError",
    "DownloadError",
    "EngineError",
    "FgddError",
    "ImageError",
    "MissingExtraError",
    "OutputError",
    "PluginError",
    "SettingsError",
    "StoreError",
    "TeacherError",
]


class DataError(FgddError):
    """The data set as a whole cannot be used."""


class ImageError(DataError):
    """One image cannot be used; `problem` is the reason listed under `skipped`, without any path."""


class DownloadError(FgddError):
    """A model of the catalogue could not be fetched, or is not what it should be."""


class TeacherError(FgddError):
    """A teacher does not know these classes, or is no better than chance."""


class StoreError(FgddError):
    """The store of measurements cannot be read or written."""


class OutputError(FgddError):
    """The distilled data set cannot be written."""
