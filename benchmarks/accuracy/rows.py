"""The rows of the accuracy table: how the images that students learn from are chosen, by name.

A method's name is its threshold rule, and after plus signs whatever differs from the most faithful choice:
`quantile:0.3`, `shuffled:median+kmeans`, `quantile:0.5+stratified+resize+keep:0.5`. RDED is `always-patch`.
Rankings are the tool's and those of `candidates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

from benchmarks.accuracy import candidates  # noqa: F401 - adds rankings
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.tiles import SCORE_VIEWS, ScoreView
from fgdd_fast.selection.ranking import RANKINGS
from fgdd_fast.selection.select import PLAIN, SelectionSettings
from fgdd_fast.selection.thresholds import Control, Rule, parse_rule

RandomName = Literal["random-whole", "random-crops"]
RDED = "always-patch"
WHOLE = "always-full"
RANDOM = "random-whole"
FULL_DATA = "full-data"  # not a row that is chosen: students of all real data
RANDOM_NAMES: tuple[RandomName, ...] = get_args(RandomName)
CONTROLS: tuple[Control, ...] = get_args(Control)
RULES = ("quantile:0.3", "quantile:0.5", "quantile:0.7", "median", "mean", "fixed:0.5")


@dataclass(frozen=True)
class Row:
    """How a set is distilled: by the method, or by RDED and by all whole, which are rules of it.

    Attributes:
        rule: which images are kept whole.
        selection: which crops count, and which tiles stay.
        view: how the teacher is shown a tile.
    """

    rule: Rule
    selection: SelectionSettings = field(default=PLAIN)
    view: ScoreView = "pad"

    @property
    def name(self) -> str:
        """The text from which the row is parsed."""
        chosen = {
            self.selection.ranking: self.selection.ranking != PLAIN.ranking,
            self.view: self.view != "pad",
            f"keep:{self.selection.keep_foreground:g}": self.selection.keep_foreground > 0,
            f"area:{self.selection.least_area:g}": self.selection.least_area > 0,
            f"distinct:{self.selection.near_duplicates}": self.selection.near_duplicates is not None,
        }
        return "+".join([str(self.rule), *(word for word, differs in chosen.items() if differs)])

    @property
    def method(self) -> bool:
        """Whether it is this project's method, and neither RDED, nor a baseline, nor a control."""
        return self.rule.kind not in (RDED, WHOLE) and self.rule.control is None

    def control(self, control: Control) -> Row:
        """Return the same with occupancies exchanged between the images of a class."""
        return replace(self, rule=replace(self.rule, control=control))

    def always(self, kind: Literal["always-patch", "always-full"]) -> Row:
        """Return the same with one kind of tile for all images, without choices that then change nothing."""
        ranking = self.selection.ranking
        within = {"stratified": "loss", "whole-first": "loss", "stratified-kmeans": "kmeans"}
        selection = replace(self.selection, ranking=within.get(ranking, ranking))
        if kind == WHOLE:
            selection = replace(selection, keep_foreground=0.0, least_area=0.0)
        return replace(self, rule=Rule(kind), selection=selection)


AnyRow = Row | RandomName


def name_of(row: AnyRow) -> str:
    """Return a row's name."""
    return row.name if isinstance(row, Row) else row


def rded_for(row: AnyRow) -> tuple[str, ...]:
    """Return the names of RDED that a row is compared with: of its view, or any where it asks no teacher."""
    views = (row.view,) if isinstance(row, Row) else SCORE_VIEWS
    return tuple(Row(parse_rule(RDED), view=view).name for view in views)


def parse_row(text: str) -> AnyRow:
    """Parse a row's name.

    Raises:
        SettingsError: it is none.
    """
    for name in RANDOM_NAMES:
        if text == name:
            return name
    rule, *choices = text.split("+")
    row = Row(parse_rule(rule))
    for choice in choices:
        row = _with(row, choice)
    return row


def _with(row: Row, choice: str) -> Row:
    """Return a row with one more choice."""
    if choice in RANKINGS:
        return replace(row, selection=replace(row.selection, ranking=choice))
    if choice in SCORE_VIEWS:
        return replace(row, view=choice)
    word, _, value = choice.partition(":")
    try:
        if word == "distinct" and 0 <= int(value) <= 64:
            return replace(row, selection=replace(row.selection, near_duplicates=int(value)))
        if word == "keep" and 0 < float(value) <= 1:
            return replace(row, selection=replace(row.selection, keep_foreground=float(value)))
        if word == "area" and 0 < float(value) <= 1:
            return replace(row, selection=replace(row.selection, least_area=float(value)))
    except ValueError:
        pass
    raise SettingsError(
        f"'{choice}' is no part of a row's name",
        f"After the rule may follow: +{', +'.join([*RANKINGS, *SCORE_VIEWS])}, +keep:SHARE and +area:SHARE "
        "(above 0, up to 1), +distinct:BITS (0 to 64).",
    )


_RANKINGS = ("stratified", "whole-first", "kmeans", "stratified-kmeans")
# What each group changes of the plain methods, besides their rule.
GROUPS: Mapping[str, tuple[Callable[[Row], Row], ...]] = {
    "main": (lambda row: row,),
    "rankings": tuple(partial(_with, choice=ranking) for ranking in _RANKINGS),
    "views": tuple(partial(_with, choice=view) for view in SCORE_VIEWS),
    "constraints": tuple(partial(_with, choice=choice) for choice in ("keep:0.5", "area:0.3", "distinct:2")),
}


def choose_rows(
    words: Sequence[str],
    rules: Sequence[str] = RULES,
    controls: Sequence[Control] = CONTROLS,
    view: ScoreView = "pad",
) -> tuple[AnyRow, ...]:
    """Return the rows of groups and names, each once, in the order given.

    Every method comes with its controls, and with RDED and all whole under the same choices.

    Args:
        words: names of groups, `all` for every group, or names of rows.
        rules: of the method, for the groups.
        controls: of each method, for the groups.
        view: of each method, for the groups but `views`.

    Raises:
        SettingsError: a word is neither, or a rule is none of the method's.
    """
    methods = [replace(_method(rule), view=view) for rule in rules]
    rows: list[AnyRow] = []
    for word in words:
        names = list(GROUPS) if word == "all" else [word]
        if word != "all" and word not in GROUPS:
            rows.append(parse_row(word))
            continue
        rows += RANDOM_NAMES if "main" in names else ()
        for row in (variant(row) for name in names for variant in GROUPS[name] for row in methods):
            rows += [row.always("always-patch"), row.always("always-full"), row]
            rows += [row.control(control) for control in controls]
    return tuple(dict.fromkeys(rows))


def _method(rule: str) -> Row:
    row = Row(parse_rule(rule))
    if not row.method:
        raise SettingsError(f"{rule} is no rule of the method", "Name it among --rows instead.")
    return row


@dataclass(frozen=True)
class Pairing:
    """Two rows that are compared.

    Attributes:
        first, second: names; a positive difference is in favour of the first.
        question: what the difference answers.
    """

    first: str
    second: str
    question: str


def pairings(names: Sequence[str]) -> tuple[Pairing, ...]:
    """Return the comparisons that rows call for, between those that are there.

    Every method is compared with RDED of the same view, its own controls, one kind of tile for all images
    under the same choices, and random images; the baselines with RDED and random images; the controls with
    nothing else.
    """
    return tuple(
        Pairing(name, second, question)
        for name in dict.fromkeys(names)
        for second, question in _opponents(name).items()
        if second in names and second != name
    )


def _opponents(name: str) -> dict[str, str]:
    """Return the rows that one is compared with, with what the difference answers."""
    row = parse_row(name)
    if isinstance(row, Row) and row.rule.control is not None:
        return {}
    opponents = {} if name == RANDOM else dict.fromkeys(rded_for(row), "better than RDED?")
    if isinstance(row, Row) and row.method:
        opponents |= {row.control(control).name: "does the foreground pay?" for control in CONTROLS}
        for same in (row.always("always-patch").name, row.always("always-full").name):
            opponents.setdefault(same, "do both paths together pay?")
    return opponents | {RANDOM: "better than random images?"}
