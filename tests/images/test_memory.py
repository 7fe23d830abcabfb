"""The memory that threads share while they decode."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fgdd_fast.parallel import MemoryBudget


def test_threads_never_hold_more_than_the_budget_and_all_come_through() -> None:
    budget = MemoryBudget(100)
    lock, held, most = threading.Lock(), [0], [0]

    def work(amount: int) -> None:
        with budget.holding(amount):
            with lock:
                held[0] += amount
                most[0] = max(most[0], held[0])
            threading.Event().wait(0.001)
            with lock:
                held[0] -= amount

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [10, 30, 60, 50, 90, 20] * 10))
    assert held == [0]
    assert 60 < most[0] <= 100


def test_whoever_wants_more_than_all_has_it_alone() -> None:
    budget = MemoryBudget(100)
    begun, entered = threading.Event(), threading.Event()

    def want_all() -> None:
        begun.set()
        with budget.holding(1000):
            entered.set()

    with budget.holding(10):
        thread = threading.Thread(target=want_all)
        thread.start()
        begun.wait()
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()


def test_an_error_gives_its_share_back() -> None:
    budget = MemoryBudget(100)
    with pytest.raises(ValueError, match="within"), budget.holding(100):
        raise ValueError("within")
    entered = threading.Event()

    def want_all() -> None:
        with budget.holding(100):
            entered.set()

    threading.Thread(target=want_all, daemon=True).start()
    assert entered.wait(10)
