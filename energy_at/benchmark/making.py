"""A row from its names."""

from energy_at.benchmark.inference_rows import evaluation_row, sampling_row
from energy_at.benchmark.libraries import LIBRARIES
from energy_at.benchmark.rows import Clock, Row
from energy_at.benchmark.scenarios import SCENARIOS
from energy_at.benchmark.setting import Setting
from energy_at.benchmark.timing import Here, Turns, clock_of
from energy_at.benchmark.training_rows import training_row

PUBLISHED = ("reference", *LIBRARIES)


def turns_of(
    setting: Setting, scenario: str, name: str, precision: str, clock: str
) -> Turns | None:
    """A row that runs in this process; ``None`` if it does not do this work."""
    read = clock_of(clock, setting.device)
    row = _row(setting, scenario, name, precision, read)
    return None if row is None else Here(row, setting.device, read)


def _row(setting: Setting, scenario: str, name: str, precision: str, clock: Clock) -> Row | None:
    about = SCENARIOS[scenario]
    if about.kind == "training":
        return training_row(name, about, precision, setting, clock)
    made = evaluation_row if about.kind == "evaluation" else sampling_row
    return made(name, precision, setting, clock)
