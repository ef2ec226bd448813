import logging
import sys

import pytest

from energy_at.core import progress
from energy_at.core.progress import (
    Bar,
    clock,
    one_line_retries,
    printable,
    set_job,
    titled,
    write_line,
)


@pytest.fixture(autouse=True)
def _no_job():
    yield
    set_job()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3729, "1:02:09"), (-3, "0:00")]
)
def test_a_time_left_has_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


def test_only_lines_beside_other_jobs_carry_the_title_of_their_job(capsys):
    for alone in (True, False):
        set_job("[3/6] seed=0", alone=alone)
        write_line("epoch 1/2")
        assert titled("table") == "[3/6] seed=0\ntable"
    set_job()
    write_line("epoch 2/2")
    assert titled("table") == "table"
    assert capsys.readouterr() == ("", "epoch 1/2\n[3/6] seed=0: epoch 1/2\nepoch 2/2\n")


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_bar_needs_a_terminal_of_its_own(monkeypatch, terminal, alone):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    set_job("[1/2]", alone=alone)
    with Bar(total=2) as bar, Bar(total=2, visible=False) as hidden:
        assert bar.disable == (not (terminal and alone))
        assert hidden.disable
    assert progress.has_bars() == (terminal and alone)


def test_of_the_tries_of_a_client_one_line_is_printed(monkeypatch):
    logger, heard = logging.getLogger("huggingface_hub.utils._http"), []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    monkeypatch.setattr(logger, "handlers", [handler])
    with one_line_retries():
        for k in range(5):
            logger.warning("'[Errno -2]' thrown while requesting HEAD")
            logger.warning("Retrying in %ds [Retry %d/5].", k, k)
        logger.error("an error")
    assert heard == [
        "no answer from the Hugging Face Hub: trying again for half a minute",
        "an error",
    ]
    assert not logger.filters


def test_a_name_neither_steers_a_terminal_nor_reorders_its_line():
    shown = printable("ü \x1b[31m\x9b2J\u202egnp.exe\u2066\tend\n")
    assert shown == "ü \\x1b[31m\\x9b2J\\u202egnp.exe\\u2066\tend\n"
