"""Signals that stop a run reach whoever runs, and nobody else afterwards."""

from __future__ import annotations

import os
import signal
import threading

from moorage.fleet.report.signals import STOPPING, heard


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOPPING]


def test_each_is_heard_as_often_as_it_comes_and_breaks_nothing_off() -> None:
    before, got = handlers(), list[int]()
    with heard(got.append):
        for number in (*STOPPING, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert got == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    assert handlers() == before


def test_beside_the_main_thread_signals_stay_where_they_are() -> None:
    before, seen = handlers(), list[list[object]]()

    def work() -> None:
        with heard(lambda _: None):
            seen.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
