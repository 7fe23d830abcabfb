"""Commands that are killed at random moments, and run again."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from campaign_scene import COMMANDS, SAME, Scene, broken, cached_in, gist, unfinished
from campaigning import SEED, Tally, number, start

KILLS = number("KILLS", 100)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed(name: str, scene: Scene, tally: Tally, tmp_path: Path) -> None:
    """What is there is whole at any moment, and running again gives what an undisturbed run gives."""
    random, work = Random(f"{SEED} {name}"), tmp_path / "work"
    if name == "engine build":
        pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    whole = scene.whole(name)
    seconds = scene.run(name, scene.begin(name, work)).seconds
    for trial in range(KILLS):
        if not tally.in_time:
            break
        scene.begin(name, work)
        for _ in range(random.choice((1, 1, 2))):
            child = start(scene.words(name, work), scene.log, lambda: cached_in(work))
            done = child.wait(random.uniform(0, 1.1 * seconds))
            ended = child.kill() if done is None else done
        moment = f"{trial}, after {ended.seconds:.2f} of {seconds:.2f} s"
        tally.add(
            "ended before it was killed" if ended.code == 0 else "killed", broken(scene, name, work, moment)
        )
        again = scene.run(name, work)
        now = gist(work)
        if again.code:
            # A command that refuses to replace what it made itself is right where that is whole.
            refused = "exists" in again.said and now == whole
            tally.add(
                "done already" if refused else "failed", "" if refused else f"{moment}: {again.said[-500:]}"
            )
        elif name in SAME:
            other = {key for key in {*now, *whole} if now.get(key) != whole.get(key)}
            tally.add("other bytes" if other else "same bytes", f"{moment}: {other}" if other else "")
        else:
            lost = whole.keys() - now.keys()
            tally.add("other files" if lost else "whole", f"{moment}: {lost}" if lost else "")
        if left := [path for path in work.rglob("*") if unfinished(path)]:
            tally.add("left over", f"{moment}: {left}")
