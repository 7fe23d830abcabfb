"""Divide a validation folder into two halves: choose on the first, confirm on the second.

    python -m benchmarks.accuracy.halves VALIDATION FOLDER

FOLDER/first and FOLDER/second get links to the images, class by class. The half follows from a file's bytes
alone, so that it is the same everywhere, and equal images stay together.
"""

from __future__ import annotations

from pathlib import Path

import click

from fgdd_fast.errors import FgddError
from fgdd_fast.images.dataset import scan
from fgdd_fast.images.decode import read_file

HALVES = ("first", "second")


def divide(validation: Path, folder: Path) -> dict[str, int]:
    """Link each image of a folder into one of two, and return how many each has.

    Raises:
        FgddError: a file cannot be read.
        OSError: a link cannot be made, as where FOLDER was made before.
    """
    counts = dict.fromkeys(HALVES, 0)
    for image in scan(validation).images:
        half = HALVES[bytes.fromhex(read_file(image.path).sha256)[0] % 2]
        link = folder / half / image.source
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.path.resolve())
        counts[half] += 1
    return counts


@click.command()
@click.argument("validation", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(validation: Path, folder: Path) -> None:
    """Divide a validation folder into two halves by the hashes of its files."""
    try:
        counts = divide(validation, folder)
    except (FgddError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(", ".join(f"{folder / half}: {count} images" for half, count in counts.items()))


if __name__ == "__main__":
    main()
