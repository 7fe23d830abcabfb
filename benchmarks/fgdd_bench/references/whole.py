"""From files to mosaics: the parts of a reference in a row, as separate scripts do it.

A reference finds foregrounds, scores views and composes mosaics one after the other, and reads the files each
time; on photographs that is little beside the networks. Which tiles the mosaics take follows from its own
answers, by the same rule and limits as this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fgdd_bench.harness.implementation import Answer, Implementation, Name, PathName, Stage
from fgdd_bench.harness.subject import Original, Task, kept_of, mosaics_of, plan_of, records_of
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.planning import Plan

# Opens a part of the whole; it composes the plan that is given.
OpenPart = Callable[[PathName, Plan | None], Implementation]


class WholeReference(Implementation):
    """A reference's parts, one after the other.

    Args:
        name: whose.
        task: what every implementation is given.
        originals: the images; their sizes and hashes are known to it.
        open_part: opens the reference along a part of the path.
    """

    def __init__(self, name: Name, task: Task, originals: Sequence[Original], open_part: OpenPart) -> None:
        super().__init__(name)
        self._task = task
        self._originals = {original.image: original for original in originals}
        self._settings = mosaics_of(originals, task)
        self._open_part = open_part
        self._composer: tuple[Plan, Implementation] | None = None
        try:
            self._foreground = self.opened.enter_context(open_part("foreground", None))
            self._teacher = self.opened.enter_context(open_part("teacher", None))
        except BaseException:
            self.close()
            raise
        self.arithmetic = " + ".join(dict.fromkeys([self._foreground.arithmetic, self._teacher.arithmetic]))

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`; what composes is kept for as long as the plan is the same."""
        originals = [self._originals[image] for image in images]
        found = self._foreground.run(images)
        answer = {
            "occupancy": found["occupancy"],
            "losses": self._teacher.run(images)["losses"],
            "kept": kept_of(originals, self._task, found["masks"]),
        }
        plan = plan_of(records_of(originals, self._task, answer), self._settings)
        if self._composer is None or self._composer[0] != plan:
            if self._composer is not None:
                self._composer[1].close()
            self._composer = plan, self.opened.enter_context(self._open_part("compose", plan))
        return {**answer, "mosaics": self._composer[1].run(images)["mosaics"]}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        if self._composer is None:
            self.run(images)
        assert self._composer is not None
        parts = (self._foreground, self._teacher, self._composer[1])
        return [stage for part in parts for stage in part.stages(images)]
