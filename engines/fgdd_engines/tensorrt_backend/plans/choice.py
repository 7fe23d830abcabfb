"""Which of the built plans may stand for the one that is wanted, and why others may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fgdd_engines.errors import EngineError
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, file_name
from fgdd_engines.tensorrt_backend.plans.sidecar import USABLE, Plan, State

_SHOWN = 3  # reasons of a refusal: those of the nearest plans
_REFUSALS: dict[State, str] = {
    "unchecked": "has not been compared with the fp32 model yet",
    "below bar": "decides too differently from the fp32 model, and is kept out of use",
}
_on_trial: set[Path] = set()


@dataclass(frozen=True)
class Damaged:
    """A plan or a sidecar that cannot be used.

    Attributes:
        path: the plan's file, which may be missing.
        problem: what is wrong with it.
    """

    path: Path
    problem: str


@contextmanager
def trial(plans: Sequence[Plan]) -> Iterator[None]:
    """Within the block, let this process choose these plans first whatever their state, to try them out."""
    new = {plan.path for plan in plans} - _on_trial
    _on_trial.update(new)
    try:
        yield
    finally:
        _on_trial.difference_update(new)


def choose_plan(
    wanted: PlanKey, plans: Sequence[Plan], damaged: Sequence[Damaged], read: Callable[[Plan], bytes]
) -> tuple[Plan, bytes]:
    """Return the plan that stands for a key, and its content; of several, that for the nearest batch.

    `damaged` might be a plan for it, for the refusal; `read` gives a plan's content, checked against its
    hash. Raises EngineError where there is none; the message says what there is, and why that cannot be used.
    """
    of_model = [plan for plan in plans if plan.key.model == wanted.model]
    reasons = []
    for plan in sorted(of_model, key=lambda plan: _distance(plan, wanted)):
        try:
            _check_usable(plan, wanted)
            return plan, read(plan)
        except EngineError as error:
            reasons.append(error.problem)
    beginning = f"{file_name(wanted.model)}-"
    reasons += [item.problem for item in damaged if item.path.name.startswith(beginning)]
    batch = wanted.profile.maximum
    none = f"There is no engine of {wanted.model} in {wanted.precision} for {wanted.platform}, batch {batch}"
    raise EngineError(
        "; ".join([none, *reasons[:_SHOWN]]),
        f"Build one on this device: fgdd-fast engine build BUNDLE --device {wanted.flavour} "
        f"--precision {wanted.precision}   (with a --batch-profile that covers {batch})",
    )


def _check_usable(plan: Plan, wanted: PlanKey) -> None:
    """Raise EngineError unless a plan may stand for a key."""
    if differences := plan.key.differences(wanted):
        raise EngineError(f"{plan.path.name} {' and '.join(differences)}")
    if plan.state not in USABLE and plan.path not in _on_trial:
        raise EngineError(f"{plan.path.name} {_REFUSALS[plan.state]}", "Run: fgdd-fast engine verify")


def _distance(plan: Plan, wanted: PlanKey) -> tuple[bool, int, int, int]:
    """How far a plan is from the one wanted: whether it is on trial, what differs, and then its batches."""
    profile = plan.key.profile
    return (
        plan.path not in _on_trial,
        len(plan.key.differences(wanted)),
        abs(profile.optimum - wanted.profile.optimum),
        profile.maximum - profile.minimum,
    )
