"""What the package itself does before any of its modules is imported."""

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("argv", "said"),
    [(["-m"], "\nstopped\n"), (["bin/energy-at"], "\nstopped\n"), (["train.py"], "Traceback")],
)
def test_ctrl_c_while_an_entry_is_imported_is_no_defect(argv, said):
    """As of ``python -m energy_at.train``: the package comes first, then what takes its time."""
    program = f"import sys; sys.argv = {argv}; import energy_at; raise KeyboardInterrupt"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGINT  # 130 in a shell
    assert done.stderr.startswith(said)
    assert ("Traceback" in done.stderr) == (argv == ["train.py"])
