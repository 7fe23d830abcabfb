"""A campaign of damage and faults: everything that a disk, a clock, a signal or an odd file may do.

    .venv/bin/pytest -n 0 -m campaign tests/campaign

It is left out of other runs. With its whole numbers it takes hours; environment variables change them:

    FGDD_CAMPAIGN_SEED      of everything that is drawn; 1
    FGDD_CAMPAIGN_IMAGES    mutated images of each format; 10000
    FGDD_CAMPAIGN_FILES     mutated files of each other kind; 1000
    FGDD_CAMPAIGN_KILLS     moments at which each command is killed; 100
    FGDD_CAMPAIGN_STEP      KiB by which a full disk has more room each time; 4, which is a page
    FGDD_CAMPAIGN_TOGETHER  times that processes do the same at once; 20
    FGDD_CAMPAIGN_SOAK      minutes of the soak; 20
    FGDD_CAMPAIGN_BOX       minutes after which a part ends early; 0 for none
    FGDD_CAMPAIGN_JSON      the record that is written; build/reliability.json

`docs/results/reliability.md` has what was found. The same seed gives the same tries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign_scene import Scene
from campaigning import Tally, write_record

from fgdd_bench.machine.environment import environment

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the markers are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.campaign)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts what becomes of the tries of a test, keeps it in the record, and fails if any is bad."""
    name = request.node.name.removeprefix("test_").replace("[", ": ").rstrip("]")
    found = Tally(f"{request.path.stem.removeprefix('test_')}: {name}")
    yield found
    file = Path(os.environ.get("FGDD_CAMPAIGN_JSON", "build/reliability.json"))
    write_record(found, file, environment())
    assert not found.bad, "\n".join([f"{len(found.bad)} bad", *found.bad[:20]])


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Inputs of all commands, and what each gives where nothing disturbs it."""
    return Scene(tmp_path_factory.mktemp("scene"))
