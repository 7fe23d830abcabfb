"""A result says what was measured, in JSON, Markdown and HTML; where answers differ no ratio is in any."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_implementations import TASK, answer
from fake_results import LIMITS, SECONDS, measurement, result

from fgdd_bench.harness.result import path_result, rounded, to_text
from fgdd_bench.reporting import report
from fgdd_bench.reporting.page import page
from fgdd_bench.reporting.report import markdown

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and collects text and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_ratios_are_of_a_turn() -> None:
    found = path_result(measurement(), TASK, LIMITS)
    fair = found["speedup"]["fair"]
    assert (fair["median"], fair["lowest"], fair["highest"]) == pytest.approx((3.7, 3.7, 3.7))
    assert found["speedup"]["published"]["turns"] == pytest.approx([23.3] * 3)
    ours = found["implementations"]["ours"]
    assert ours["turns"]["seconds"] == list(SECONDS["ours"])
    assert ours["warm_ups"]["seconds"] == [0.1]
    assert ours["images_per_second"]["median"] == pytest.approx(160)
    assert ours["images_per_second"]["lowest"] == pytest.approx(80)
    assert ours["processor_seconds_per_image"] == pytest.approx(0.15 / 16)
    assert ours["batch"] == 4


def test_stages_are_shares_of_what_they_need_together() -> None:
    found = path_result(measurement(), TASK, LIMITS)["implementations"]["ours"]
    shares = {stage["name"]: stage["share"] for stage in found["stages"]}
    needs = {"decode": 0.016, "teacher": 0.16, "write": 0.008}
    assert shares == {name: pytest.approx(need / 0.184, rel=1e-3) for name, need in needs.items()}
    assert found["bound_by"] == "teacher"
    assert found["busy"] == pytest.approx(0.184 / (2 * 0.1), rel=1e-3)
    teacher = found["stages"][1]
    assert teacher["latency_ms"] == {"p50": 20, "p90": 20, "p99": 20}
    assert teacher["images_per_second_per_core"] == 100


def test_stages_are_held_against_what_is_possible() -> None:
    stages = path_result(measurement(), TASK, LIMITS)["implementations"]["ours"]["stages"]
    decode, teacher, write = stages
    assert decode["limit"] == {"images_per_second": 700, "share": pytest.approx(1000 / 700, rel=1e-3)}
    # a million multiply-adds for each of four views, in bf16
    assert teacher["limit"]["images_per_second"] == pytest.approx(7e10 / 4e6)
    assert teacher["limit"]["share"] == pytest.approx(100 / 17500, rel=1e-3)
    assert "limit" not in write


def test_stages_on_a_gpu_keep_that_busy_and_are_held_against_nothing() -> None:
    task = replace(TASK, device="cuda")
    found = path_result(measurement(), task, LIMITS)["implementations"]["ours"]
    assert found["device_busy"] == pytest.approx(0.08 / 0.1)
    assert found["busy"] == pytest.approx(0.024 / (2 * 0.1))
    assert ["limit" in stage for stage in found["stages"]] == [True, False, False]


def test_several_precisions_have_no_common_limit() -> None:
    found = path_result(measurement(arithmetic="a, bf16 + b, int8 and fp32"), TASK, LIMITS)
    assert "limit" not in found["implementations"]["ours"]["stages"][1]


def test_decoding_is_held_against_opencv_in_turns() -> None:
    found = path_result(measurement("decode"), TASK, LIMITS)
    assert found["limit"]["shares"]["ours"]["median"] == pytest.approx(0.8)
    assert found["limit"]["shares"]["fair"]["turns"] == pytest.approx([0.08 / 0.37] * 3, rel=1e-3)
    assert found["limit"]["shares_per_core"]["ours"]["median"] == pytest.approx(0.8)
    assert "| 80.0 % | 0.250 |" in markdown(result(measurement("decode")))
    assert "80.0 %" in read(page(result(measurement("decode")))).text


@pytest.mark.parametrize("other", ["fp32", "fair", "published"])
def test_where_answers_differ_no_speed_up_is_shown(other: str) -> None:
    good, bad = measurement("decode"), measurement("teacher", {other: answer("teacher", seed=1)})
    whole = result(good, bad)
    assert "speedup" in whole["paths"][0]
    assert "speedup" not in whole["paths"][1]
    assert whole["paths"][1]["failures"]
    alone = result(bad)
    texts = {"json": to_text(alone), "html": read(page(alone)).text, "md": markdown(alone)}
    for kind, text in texts.items():
        assert not re.search(r"\b(3\.7|23\.3)0*\b", text), kind
        assert "speedup" not in text
        assert other in text
    for kind in ("html", "md"):
        assert "160" not in texts[kind]  # nor the rates, of which one could take it
        assert "o speed-up" in texts[kind]
        for failure in alone["paths"][0]["failures"]:
            assert failure in texts[kind]
    accepted = result(good)
    for text in (to_text(accepted), read(page(accepted)).text, markdown(accepted)):
        assert re.search(r"\b3\.70?\b", text)


def test_the_tables() -> None:
    text = markdown(result(measurement("teacher"), measurement("foreground")))
    assert "| scoring | 3.70 (3.70 to 3.70) | 23.3 (23.3 to 23.3) | 160 | agree |" in text
    assert "against fair PyTorch | against published style" in text  # fair comes first
    assert "compiled" not in text  # it was not measured
    assert "| scoring | teacher | 100 | 20.0 | 20.0 | 20.0 | 87.0 % | 0.6 % |" in text
    assert "| foreground | same path | 100.0 % (at least 0.99) | 100.0 % | 100.0 % |" in text
    for table in text.strip().split("\n\n")[1:]:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_page_needs_nothing_else() -> None:
    whole = result(measurement("teacher"), measurement("decode"), measurement("all"))
    text = page(whole)
    reader = read(text)
    assert reader.addresses == []
    assert not re.search(r"url\(|@import|https?:", text)
    assert "prefers-color-scheme: dark" in text
    assert "3.70\N{MULTIPLICATION SIGN}" in reader.text
    assert "<train>" in reader.text  # escaped in the file
    assert "<train>" not in text
    assert "Scoring" in reader.text
    assert "OpenCV's decoding alone" in reader.text
    # a dot for each turn of each way, and of the limit
    assert text.count('class="dot ') == 3 * (3 + 4 + 3)


def test_a_page_of_a_gpu_and_a_board() -> None:
    whole = result(measurement())
    whole["environment"]["gpus"] = [{"name": "H100", "clock_mhz": "1980"}]
    whole["environment"]["jetson"] = {"model": "Orin", "power_mode": "MAXN", "jetpack": None}
    ours = whole["paths"][0]["implementations"]["ours"]
    ours["peak_memory"]["device"] = 3 * 2**30
    ours["device_busy"] = 0.75
    text = read(page(whole)).text
    for words in ("H100, clock mhz 1980", "power_mode MAXN", "3.00 GiB", "75.0 %"):
        assert words in text


def test_what_was_not_measured_is_said() -> None:
    whole = {**result(measurement()), "unfinished": ["compose"]}
    assert "Not measured: compose" in read(page(whole)).text


def test_json_has_digits_that_count_and_lists_on_a_line() -> None:
    values: dict[str, Any] = {
        "a": [0.123456789, 12345678.0, 3],
        "b": float("nan"),
        "c": {"d": (1e-9,)},
        "e": ["x"],
    }
    text = to_text(rounded(values))
    assert json.loads(text) == {"a": [0.12346, 12346000.0, 3], "b": None, "c": {"d": [1e-09]}, "e": ["x"]}
    assert '"a": [ 0.12346, 12346000.0, 3 ]' in text


def test_results_of_the_first_format_are_read() -> None:
    results = Path(__file__).parents[2] / "benchmarks/results"
    printed = CliRunner().invoke(report.main, [str(file) for file in sorted(results.glob("bench-*.json"))])
    assert printed.output == (results / "bench.md").read_text()


def test_results_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(to_text(result(measurement())))
    printed = CliRunner().invoke(report.main, [str(file), str(file)])
    assert printed.exit_code == 0, printed.output
    assert printed.output.count("| scoring | 3.70 (3.70 to 3.70) |") == 2
    assert printed.output.count("## result\n\n`fgdd-fast bench") == 2


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\xff"])
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "result.json"
    if content is not None:
        file.write_bytes(content)
    printed = CliRunner().invoke(report.main, [str(file)])
    assert printed.exit_code == 1
    assert "is not a result of fgdd-fast bench" in printed.output
