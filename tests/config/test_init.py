"""Resolvers of the YAML files: lengths in pixels."""

import pytest

from energy_at.config import parse_pixels
from tests.helpers.running import ONE_EPOCH, assert_refused


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("threat.eps=8", "threat.eps=8 is above 1, but pixels lie in [0, 1]: did you mean 8/255?"),
        (("threat=l2", "threat.eps=128"), "threat.eps=128 is above 13.86, but pixels lie in [0"),
        ("threat.eps=-8/255", "threat.eps=-8/255 must be a finite number > 0 and <= 1"),
        ("threat.eps=eight", "must be a number, or a fraction such as 8/255"),
        ("attack.alpha=2", "attack.alpha=2 is above 1"),
        ("attack.alpha=-1/255", "attack.alpha=-1/255 must be a finite number > 0"),
    ],
)  # fmt: skip
def test_a_length_that_is_typed_is_met_by_its_key(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.3", 0.3), (0.03, 0.03), ("128 / 255", 128 / 255), (1, 1.0)],
)
def test_lengths_are_written_as_fractions(text, value):
    assert parse_pixels("threat.eps", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["8", "256/255", "x", "1/0", "", "8/255/2", "nan"])
def test_lengths_in_other_units_are_refused(text):
    with pytest.raises(ValueError, match=r"^threat\.eps="):
        parse_pixels("threat.eps", text)
