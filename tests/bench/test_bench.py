"""A path is measured whole: its ways are opened, timed, compared and closed, whatever happens."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import pytest
from fake_ways import SILENT, TASK, FakeOpener, FakeWay, answer, originals

from fgdd_bench.harness import timing
from fgdd_bench.harness.bench import LIMIT, Contest, answer_digest, measure_path
from fgdd_bench.harness.ways import Answer, PathName, ReferenceName, Stage
from fgdd_fast.images.dataset import SourceImage

SECONDS = {"product": 0.01, "fair": 0.03, "published": 0.06}
REFERENCES: tuple[ReferenceName, ...] = ("published", "fair")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FEWEST_CALLS", 1)
    monkeypatch.setattr(gc, "collect", lambda: None)  # long where other tests have loaded much


def measure(opener: FakeOpener, path: PathName = "teacher", repeats: int = 2) -> Contest:
    return measure_path(path, opener, originals(), TASK, references=REFERENCES, repeats=repeats, watch=SILENT)


def test_every_way_runs_in_every_turn_and_is_closed() -> None:
    opener = FakeOpener(SECONDS)
    contest = measure(opener, repeats=3)
    assert list(contest.columns) == ["product", "published", "fair"]
    for measured in contest.columns.values():
        assert len(measured.timed.samples) == 3
        assert [stage.name for stage in measured.stages] == ["decode", "teacher", "write"]
        assert measured.load_seconds == 0.25
        assert measured.timed.repeatable
    fp32, *ways = opener.opened
    assert fp32.runs == 1  # for its answer alone
    for way in ways:
        assert way.runs == 3 + len(contest.columns[way.column].timed.warm_ups)
    assert all(way.closed for way in opener.opened)
    assert contest.images == 16
    assert contest.failures == ()
    assert [parity.against for parity in contest.parities] == ["fp32", "published", "fair"]


def test_slower_is_slower() -> None:
    columns = measure(FakeOpener(SECONDS)).columns
    for name in REFERENCES:
        for own, other in zip(columns["product"].timed.samples, columns[name].timed.samples, strict=True):
            assert other.seconds > 1.5 * own.seconds


def test_encodings_are_counted_before_the_stages_encode_once_more() -> None:
    class Encoding(FakeWay):
        text_encodings: int

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.text_encodings = 2

        def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
            self.text_encodings += 100
            return ()

    class Opener(FakeOpener):
        def open(self, path: PathName, column: object, tell: object) -> FakeWay:
            return Encoding(column, answer(path))

    contest = measure(Opener(SECONDS))
    assert contest.columns["product"].text_encodings == 2


def test_decoding_takes_turns_with_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def decoding(files: Sequence[object], threads: int) -> object:
        assert (len(files), threads) == (16, TASK.threads)
        return lambda: decoded.append(1) or {}

    monkeypatch.setattr("fgdd_bench.harness.bench.opencv_decoding", decoding)
    contest = measure(FakeOpener(SECONDS), "decode")
    assert contest.limit is not None
    assert len(contest.limit.samples) == 2
    assert len(decoded) == 2 + len(contest.limit.warm_ups)
    assert LIMIT not in contest.columns
    assert measure(FakeOpener(SECONDS), "teacher").limit is None


def test_composing_is_counted_in_tiles() -> None:
    assert measure(FakeOpener(SECONDS), "compose").images == 2 * TASK.factor**2


def test_a_way_that_answers_otherwise_is_found() -> None:
    for column in ("product", "fp32", "fair"):
        contest = measure(FakeOpener(SECONDS, {column: answer("teacher", seed=1)}))
        assert contest.failures
        against = {failure.split(" against ")[1].split(" ")[0] for failure in contest.failures}
        assert against == {"fp32", "published", "fair"} if column == "product" else {column}


@pytest.mark.parametrize("failing", ["open", "run", "stages", "interrupt"])
def test_what_fails_leaves_nothing_open(failing: str) -> None:
    error = KeyboardInterrupt if failing == "interrupt" else ValueError

    class Failing(FakeWay):
        def run(self, images: Sequence[SourceImage]) -> Answer:
            if failing in ("run", "interrupt"):
                raise error
            return super().run(images)

        def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
            raise error

    class Opener(FakeOpener):
        def open(self, path: PathName, column: object, tell: object) -> FakeWay:
            if column != "fair":
                way = super().open(path, column, tell)  # type: ignore[arg-type]
                assert isinstance(way, FakeWay)
                return way
            if failing == "open":
                raise error
            self.opened.append(Failing("fair", answer(path)))
            return self.opened[-1]

    opener = Opener(SECONDS)
    with pytest.raises(error):
        measure(opener)
    assert len(opener.opened) >= 3
    assert all(way.closed for way in opener.opened)


def test_progress_counts_the_runs_that_count() -> None:
    told: list[tuple[str, bool]] = []
    measure_path(
        "teacher",
        FakeOpener(SECONDS),
        originals(),
        TASK,
        references=REFERENCES,
        repeats=2,
        watch=lambda line, counts: told.append((line, counts)),
    )
    assert sum(counts for _, counts in told) == 2 * 3
    assert all(line.startswith("teacher: ") for line, _ in told)


def test_answers_have_one_digest_if_they_are_the_same() -> None:
    one, other = answer("all"), answer("all")
    assert answer_digest(one) == answer_digest(dict(reversed(other.items())))
    other["losses"][3, 1] = np.nextafter(other["losses"][3, 1], np.float32(9))
    assert answer_digest(one) != answer_digest(other)
    assert answer_digest({"a": np.zeros((2, 3))}) != answer_digest({"a": np.zeros((3, 2))})
