"""Every error that fgdd-fast raises on purpose.

FgddError                    what was wrong and where, with advice on what to do
├── SettingsError            an option, or a combination of options, that cannot work
├── MissingExtraError        a package of an optional extra is not installed
├── PluginError              what another package offers cannot be used
├── DataError                the data set as a whole: missing, empty, classes without images
│   └── ImageError           one image; the others go on, and this one is listed as skipped
├── RemoteError              an object store cannot be reached, or lets nobody in
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
    "RemoteError",
    "SettingsError",
    "StoreError",
    "TeacherError",
]


class DataError(FgddError):
    """The data set as a whole cannot be used: images, labels, masks or a manifest.

    What to do: name the right folder; `fgdd-fast check DATA` says what is odd about one, `fgdd-fast
    verify OUT` whether a distilled data set is whole. What was changed or damaged since it was made is
    made again by the command that made it.
    """


class ImageError(DataError):
    """One image cannot be used; `problem` is the reason listed under `skipped`, without any path.

    What to do: nothing has to be done, for the others go on without it. Save it again as JPEG or PNG
    where it matters.
    """


class RemoteError(FgddError):
    """An object store cannot be reached, or does not let you read what was named.

    What to do: see that the address, the connection and the credentials are right. What was measured is
    kept, so the same command goes on from there.
    """


class DownloadError(FgddError):
    """A model of the catalogue could not be fetched, or is not what it should be.

    What to do: see that the registry or the mirror (FGDD_FAST_MIRROR) can be reached, and try again; or
    fetch the file by other means, and name it: `fgdd-fast models pull NAME --from FILE`.
    """


class TeacherError(FgddError):
    """A teacher does not know these classes, or is no better than chance.

    What to do: fit one on your images (`fgdd-fast teacher fit DATA`), or give an existing one the names
    of your folders (`fgdd-fast teacher rename`); `fgdd-fast teacher check` says how good it is.
    """


class StoreError(FgddError):
    """The store of measurements cannot be read or written.

    What to do: free some space, or name another place with --store; a damaged one is measured anew once
    it is removed.
    """


class OutputError(FgddError):
    """The distilled data set, or another result, cannot be written.

    What to do: name a place that can be written and has room; --overwrite replaces an older result. What
    was measured is kept, so the same command goes on from there.
    """
