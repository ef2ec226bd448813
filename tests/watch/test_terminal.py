"""A run that is watched in the terminal."""

import io

import pytest
from rich.console import Console

from energy_at.watch.state import Watch
from energy_at.watch.terminal import clock, follow, sparkline
from tests.helpers.watching import begin, said, train

# In the terminal


def test_the_terminal_shows_values_and_curves(begun):
    train(begun, [0, 1, 2], alarm=7)
    text = said(Watch(["run"]))
    for wanted in (
        "run  evaluating",
        "epoch 3/3",
        "step 12/12",
        "32 images/s",
        "alarm: CO at step 7",
        "CO by held-out PGD accuracy since step 12",
        "FGSM - PGD accuracy, held-out",
        "0.25 to 3",
        "3 nats",
        "50 %",
    ):
        assert wanted in text, wanted
    assert "…" not in said(Watch(["run"]), width=80)


def test_many_runs_get_a_line_each(here, composed):
    for name in "abc":
        train(begin(here / name, composed), [0])
    text = said(Watch(["a", "b", "c"]), width=140)
    assert [line.split()[0] for line in text.splitlines()] == ["run", "a", "b", "c"]


def test_names_and_errors_of_a_strangers_runs_are_text(here, composed, capsys):
    for name in ("[red]a", "\x1b[31mb"):
        train(begin(here / name, composed), [0])
    (here / "\x1b[31mb" / "error.txt").write_text("oh \x1b[2J\n")
    follow(Watch([str(here)]), interval=1, once=True)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "[red]a" in text
    assert "\\x1b[31mb" in text


@pytest.mark.parametrize(("width", "failed"), [(80, "failed"), (140, "failed: the loss is nan")])
def test_a_line_has_room_for_what_was_swept(here, composed, width, failed):
    for name, beta in {"a": 0.5, "b": 12.25, "c": 20}.items():
        train(begin(here / name, composed, beta), [0])
    (here / "c" / "error.txt").write_text("the loss is nan: lower optimizer.lr\n")
    lines = said(Watch(["a", "b", "c"]), width=width).splitlines()
    swept = [line.partition("reg.weight=")[2].split()[0] for line in lines[1:]]
    assert swept == ["0.5", "12.25", "20"]
    assert failed in lines[3]
    assert "lower" not in lines[3]
    assert len(lines) == 4


def test_a_terminal_follows_until_the_end(begun):
    train(begun, [0])
    todo = [lambda: train(begun, [1, 2]), lambda: begun.write_results({})]
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    follow(Watch(["run"]), console=console, wait=lambda _: todo.pop(0)())
    assert not todo
    text = console.file.getvalue()
    assert text.index("training") < text.index("evaluating") < text.index("finished")


def test_sparklines_and_clocks():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(range(400), 40)) == 40
    assert [clock(s) for s in (None, 5, 65, 3661)] == ["-", "00:05", "01:05", "1:01:01"]
