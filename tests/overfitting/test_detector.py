"""Alarms raised by series of signals whose onset is known."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from energy_at.overfitting.alarms import PARTING, Alarm, Thresholds
from energy_at.overfitting.detector import Detector, parting, signs_of

WORKS = {"marginal": 0.0, "joint": -0.3, "shift": 0.3, "aae": 0.0, "adv": 0.4}
FAILS = {"marginal": 0.1, "joint": 0.1, "shift": 0.6, "aae": 0.5, "adv": 0.4}
SOUND = 2**-0.5  # alignment of the first; the second has none


def row(step, *, marginal, joint, shift, aae, adv, scale=1.0):
    return {
        "step": float(step),
        "train/delta_energy/marginal": scale * marginal,
        "train/delta_energy/joint": scale * joint,
        "train/delta_energy/shift_norm": scale * shift,
        "train/aae_share": aae,
        "train/acc/adv": adv,
    }


def validation(step, pgd, fgsm=None, marginal=0.0, shift=0.3):
    return {
        "step": float(step),
        "val/acc/pgd": pgd,
        "val/acc/fgsm": pgd if fgsm is None else fgsm,
        "val/delta_energy/marginal": marginal,
        "val/delta_energy/shift_norm": shift,
    }


def watched(rows, detector=None, **thresholds):
    detector = detector or Detector(Thresholds(**thresholds), classes=10)
    return [alarm for alarm in map(detector.see, rows) if alarm is not None]


@pytest.mark.parametrize("onset", [1, 50, 137])
@pytest.mark.parametrize("window", [4, 20, 21])
def test_an_alarm_comes_as_soon_as_both_means_have_crossed(onset, window):
    rows = [row(s, **(FAILS if s >= onset else WORKS)) for s in range(1, onset + 100)]
    (alarm,) = watched(rows, window=window)
    assert (alarm.kind, alarm.held_out) == ("CO", False)
    needed = ceil(window * max(0.25 / 0.5, 1 - 0.2 / SOUND))  # steps that fail
    assert alarm.step == max(onset + needed - 1, window)


@pytest.mark.parametrize("sound", [{"aae": 0.2}, {"joint": -0.3}, {"adv": 0.12}])
def test_one_sign_that_is_missing_raises_no_alarm(sound):
    assert watched([row(s, **(FAILS | sound)) for s in range(100)]) == []


def test_an_attack_that_does_not_climb_the_loss_is_not_asked():
    detector = Detector(Thresholds(), classes=10, climbs_loss=False)
    assert watched([row(s, **FAILS) for s in range(100)], detector) == []


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-2, 2), st.floats(-2, 2))
def test_signs_do_not_depend_on_the_scale_of_the_energies(scale, marginal, joint):
    step = {**WORKS, "marginal": marginal, "joint": joint}
    step["shift"] = float(np.hypot(marginal, joint)) + 0.01
    np.testing.assert_allclose(
        signs_of(row(0, **step)), signs_of(row(0, **step, scale=scale)), rtol=1e-6, atol=1e-9
    )


def test_alignment_is_the_cosine_with_the_direction_of_loss():
    assert signs_of(row(0, **WORKS))[1] == pytest.approx(SOUND)
    along = {**WORKS, "marginal": 0.2, "joint": -0.2, "shift": 0.08**0.5}
    assert signs_of(row(0, **along))[1] == pytest.approx(1)
    across = {**WORKS, "marginal": 0.2, "joint": 0.2, "shift": 0.08**0.5}
    assert signs_of(row(0, **across))[1] == pytest.approx(0)


def test_a_network_that_does_not_move_shows_no_sign():
    assert signs_of(row(0, **{**FAILS, "shift": 0.0}))[1] == 1


def noisy(share, steps, batch=64):
    """Steps whose attack is blind, and has abnormal examples by chance."""
    shares = np.random.default_rng(0).binomial(batch, share, steps) / batch
    return [row(i, **{**FAILS, "aae": float(a)}) for i, a in enumerate(shares)]


def bound(share, window=20, batch=64):
    """Chance of a window whose share is above the threshold, by the binomial distribution."""
    return binom.sf(ceil(0.25 * window * batch) - 1, window * batch, share)


def test_false_alarms_of_noise_stay_below_the_binomial_bound():
    assert 0 < len(watched(noisy(0.23, 4000))) <= 4000 * bound(0.23)


def test_noise_of_a_sound_training_raises_no_alarm():
    assert bound(0.17) < 1e-9  # a window, whatever the alignment
    assert watched(noisy(0.17, 4000)) == []


def phases(*lengths):
    whole = [phase for phase, length in lengths for _ in range(length)]
    return [row(i, **phase) for i, phase in enumerate(whole)]


@pytest.mark.parametrize(("sound", "told"), [(80, [44]), (120, [44, 214])])
def test_a_collapse_is_one_alarm_until_the_steps_were_sound_for_a_while(sound, told):
    rows = phases((WORKS, 30), (FAILS, 50), (WORKS, sound), (FAILS, 50))
    assert [alarm.step for alarm in watched(rows, recovery=100)] == told


@pytest.mark.parametrize("near", [{"aae": 0.24}, {"joint": -0.08}])
def test_a_signal_that_hovers_at_its_threshold_raises_one_alarm(near):
    hovering = [(FAILS | near if i % 2 else FAILS, 40) for i in range(20)]
    assert len(watched(phases((WORKS, 30), *hovering), recovery=20)) == 1


# Held-out images

CREEPS = {"marginal": -0.3, "joint": -0.4, "shift": 0.5, "aae": 0.34, "adv": 0.9}  # alignment 0.14


@pytest.mark.parametrize(("pgd", "told"), [(None, 1), (0.8, 0), (0.35, 1)])
def test_signs_that_held_out_images_vouch_for_are_sound(pgd, told):
    """The last validation speaks: PGD over FGSM below half of its best vouches for nothing."""
    steps = phases((CREEPS | {"aae": 0.2}, 20), (CREEPS, 40))
    checks = [] if pgd is None else [validation(19, 0.8, 0.85), validation(20, pgd, 0.85)]
    assert len(watched([*steps[:20], *checks, *steps[20:]])) == told


@pytest.mark.parametrize(
    ("signs", "told"), [({}, 1), ({"aae": 0.52}, 0), ({"marginal": -0.4, "joint": -0.39}, 0)]
)
def test_steps_of_a_robust_network_that_look_blind_tell_nothing(signs, told):
    unlearned = CREEPS | {"aae": 0.45, "adv": 0.12} | signs
    steps = phases((unlearned, 20), (FAILS, 60))
    assert len(watched([*steps[:20], validation(20, 0.8, 0.85), *steps[20:]])) == told


def test_a_collapse_is_told_half_way_from_what_was_sound():
    sound = {**WORKS, "aae": 0.2}
    rows = [*phases((sound, 20)), validation(20, 0.3, 0.32)]
    fails = [row(20 + i, **FAILS) for i in range(1, 30)]
    (alarm,) = watched([*rows, *fails])
    assert alarm.threshold == pytest.approx((0.2 + 0.5) / 2)
    needed = ceil(20 * max(0.15 / 0.3, 1 - 0.2 / SOUND))  # steps that fail
    assert alarm.step == 20 + needed


def test_a_network_that_never_gets_robust_is_told_at_the_fifth_validation():
    weak = [validation(10 * n, 0.1, fgsm=0.31) for n in range(1, 20)]
    (alarm,) = watched(weak)  # and no second one while it lasts
    assert (alarm.kind, alarm.step, alarm.held_out) == ("CO", 50, True)
    assert (alarm.value, alarm.threshold) == pytest.approx((0.1 / 0.31, 1 / 3))


@pytest.mark.parametrize(
    "other",
    [validation(45, 0.2, fgsm=0.5), validation(45, 0.0, fgsm=0.14)],
    ids=["more than a third", "nothing is learned"],
)
def test_a_network_that_is_weak_for_a_while_raises_none(other):
    weak = [validation(10 * n, 0.1, fgsm=0.31) for n in range(1, 9)]
    assert watched([*weak[:4], other, *weak[4:]]) == []


def test_pgd_that_is_weaker_than_fgsm_once_sets_no_scale():
    """A few images, or one step of PGD, may show it; their ratio may then fall to 1."""
    odd, sound = validation(10, 0.8, fgsm=0.2), [validation(10 * i, 0.3) for i in range(2, 9)]
    assert watched([odd, *sound]) == []


def test_pgd_that_breaks_away_from_fgsm_is_catastrophic():
    healthy = [validation(10 * i, 0.3, 0.32) for i in range(1, 4)]
    broken = [validation(10 * i, 0.05, 0.4) for i in range(4, 8)]
    (alarm,) = watched([*healthy, *broken])
    assert (alarm.kind, alarm.step, alarm.held_out) == ("CO", 40, True)
    lost_both = [validation(10 * i, 0.05, 0.06) for i in range(4, 8)]
    assert watched([*healthy, *lost_both]) == []


@pytest.mark.parametrize(("back", "told"), [(0.2, 1), (0.3, 2)])
def test_held_out_images_raise_no_second_alarm_before_pgd_is_clearly_back(back, told):
    """PGD over FGSM at 0.5 of its best is above the threshold of 0.4, and not clear of it."""
    accuracies = [0.3, 0.05, *[back] * 3, 0.05]
    rows = [validation(10 * i, pgd, 0.3 if pgd == 0.3 else 0.4) for i, pgd in enumerate(accuracies)]
    assert len(watched(rows)) == told


def test_a_network_that_never_was_robust_has_nothing_to_break_away_from():
    assert watched([validation(i, 0.02, 0.4) for i in range(4)]) == []


def test_robust_overfitting_is_where_delta_energy_parts():
    train = [row(s, **{**WORKS, "marginal": -0.1, "shift": 0.5}) for s in range(30)]
    apart = [validation(s, 0.3, marginal=0.08, shift=0.7) for s in (31, 32, 33, 34)]
    (alarm,) = watched([*train, validation(30, 0.31, marginal=-0.1), *apart], patience=2)
    assert (alarm.kind, alarm.step) == ("RO", 32)
    assert alarm.value == pytest.approx((0.08 + 0.1) / (0.7 + 0.5))


@pytest.mark.parametrize(("back", "told"), [(0.05, 1), (-0.02, 2)])
def test_robust_overfitting_raises_no_second_alarm_before_it_is_clearly_over(back, told):
    """Parting goes to 0.08, under the threshold of 0.1, or to 0.02."""
    train = [row(s, **{**WORKS, "marginal": -0.04, "shift": 0.5}) for s in range(30)]
    marginals = [-0.04, *[0.2] * 3, *[back] * 3, *[0.2] * 3]
    rows = [validation(31 + i, 0.3, marginal=m, shift=0.6) for i, m in enumerate(marginals)]
    assert [alarm.kind for alarm in watched([*train, *rows])] == ["RO"] * told


def test_nothing_is_overfitted_while_robustness_grows():
    train = [row(s, **{**WORKS, "marginal": -0.1, "shift": 0.5}) for s in range(30)]
    grows = [validation(31 + i, 0.2 + 0.01 * i, marginal=0.1) for i in range(10)]
    assert watched([*train, *grows]) == []


def test_parting_is_between_minus_one_and_one():
    assert parting(0.5, 0.5, [[-0.5, 0.5]]) == 1
    assert parting(-0.5, 0.5, [[0.5, 0.5]]) == -1
    assert parting(0.0, 0.0, [[0.0, 0.0]]) == 0


def test_one_wild_step_does_not_move_parting():
    assert parting(0.0, 0.5, [[-0.1, 0.5]] * 4 + [[-90.0, 99.0]]) == pytest.approx(0.1)


# Memory


def series(seed):
    """Steps and validations of a training that collapses and overfits now and then."""
    rng = np.random.default_rng(seed)
    phase = np.repeat(rng.random(12) < 0.4, 25)
    rows = []
    for step, fails in enumerate(phase, 1):
        noisy = fails != (rng.random() < 0.2)
        rows.append(row(step, **{**(FAILS if noisy else WORKS), "marginal": rng.normal(-0.1, 0.1)}))
        if step % 10 == 0:
            rows.append(validation(step, rng.uniform(0, 0.4), 0.3, rng.normal(0, 0.2)))
    return rows


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 330))
def test_a_detector_goes_on_from_its_state(seed, cut):
    rows = series(seed)
    whole, first, second = (Detector(Thresholds(), classes=10) for _ in range(3))
    before = [first.see(r) for r in rows[:cut]]
    second.load_state_dict(first.state_dict())
    assert before + [second.see(r) for r in rows[cut:]] == [whole.see(r) for r in rows]
    assert second.state_dict() == whole.state_dict()
    assert second.calm == whole.calm


def test_signs_of_a_loss_are_no_calm():
    detector = Detector(Thresholds(), classes=10)
    watched([row(s, **WORKS) for s in range(20)], detector)
    assert detector.calm
    watched([row(s, **FAILS) for s in range(20, 25)], detector)
    assert not detector.calm
    watched([row(s, **FAILS) for s in range(25, 40)], detector)
    detector.reset()
    assert detector.calm


def test_an_alarm_is_a_line_and_a_row():
    alarm = Alarm("RO", 12, PARTING, 0.0625, 0.05, held_out=True)
    assert str(alarm) == f"RO alarm at step 12: {PARTING} is 0.0625, threshold 0.05"
    assert alarm.row() == {
        "alarm/ro": 0.0625, "alarm/by/parting": 0.0625, "alarm/held_out": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", 3),
        ("patience", 0),
        ("recovery", 0),
        ("aae_share", 0),
        ("gap", 1),
        ("fall", 1),
        ("rise", 0),
        ("alignment", float("nan")),
    ],
)
def test_a_threshold_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=rf"callbacks.sentinel.thresholds.{name}={value} must be"):
        Thresholds(**{name: value})
