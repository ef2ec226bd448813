import pytest
import torch

from energy_at.attacks import FGSMPGI, AttackResult, NoAttack, fgsm, n_fgsm
from energy_at.attacks.threat import Linf
from energy_at.objectives import Trait
from energy_at.training.forward import clean_logits, needs_graph, part_of, place_of, start_logits
from tests.helpers.nets import TinyNet

BALL = Linf(8 / 255)
READS, TRAINS = Trait.READS_CLEAN, Trait.READS_CLEAN | Trait.TRAINS_CLEAN
FITS = TRAINS | Trait.FITS_CLEAN
START = Trait.READS_START | Trait.TRAINS_START


@pytest.fixture
def net():
    return TinyNet().train()


@pytest.fixture
def x():
    return torch.rand(6, 3, 8, 8)


def statistics(net):
    return [buffer.clone() for buffer in net.buffers()]


def same(one, other):
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize(
    ("attack", "traits", "needed"),
    [
        (fgsm(BALL), Trait.NONE, False),
        (fgsm(BALL), READS, False),
        (fgsm(BALL), TRAINS, True),
        (fgsm(BALL), FITS, False),  # a pass of its own, which updates the running statistics
        (n_fgsm(BALL), TRAINS, False),  # its first pass is of noisy images
        (n_fgsm(BALL), START, True),
    ],
)
def test_a_graph_is_kept_for_what_is_trained_through_the_first_pass(attack, traits, needed):
    assert needs_graph(attack, traits) == needed


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("traits", [Trait.NONE, START, READS, TRAINS, FITS])
def test_clean_logits_are_computed_as_far_as_something_needs_them(net, x, traits, observed):
    before, expected = statistics(net), net(x)
    after = statistics(net)
    for buffer, old in zip(net.buffers(), before, strict=True):
        buffer.copy_(old)
    found = clean_logits(net, x, AttackResult(x), traits, shared=True, observed=observed)
    if not (observed or traits & READS):
        assert found is None
        return
    torch.testing.assert_close(found, expected)
    assert found.requires_grad == (Trait.TRAINS_CLEAN in traits)
    assert same(statistics(net), after if traits == FITS else before)


@pytest.mark.parametrize(
    ("traits", "shared", "with_graph", "reused"),
    [
        (READS, True, False, True),
        (READS, False, False, False),
        (TRAINS, True, True, True),
        (TRAINS, True, False, False),
        (FITS, True, True, False),
    ],
)
def test_logits_of_the_attack_are_reused_where_they_are_the_same(
    net, x, traits, shared, with_graph, reused
):
    known = net(x) if with_graph else net(x).detach()
    found = AttackResult(x, x, known, started_clean=True)
    logits = clean_logits(net, x, found, traits, shared=shared, observed=False)
    assert (logits is known) == reused


def test_start_logits_are_those_of_the_attack_or_of_its_start(net, x):
    found = AttackResult(x, x + 0.01, torch.zeros(6, 4))
    before = statistics(net)
    assert start_logits(net, found, TRAINS, shared=True) is None
    assert start_logits(net, found, START, shared=True) is found.start_logits
    own = start_logits(net, found, START, shared=False)
    assert same(statistics(net), before)
    torch.testing.assert_close(own, net(x + 0.01))
    nowhere = AttackResult(x, None, None)
    assert start_logits(net, nowhere, START, shared=False) is None


def test_without_a_trainer_a_batch_is_whole(x):
    assert (part_of(None, 6, 3).whole, part_of(None, 6, 3).world) == (6, 1)
    place = place_of(NoAttack(), None, x, 1.5, 3)
    assert (place.images.tolist(), place.total) == (list(range(6)), 6)
    with pytest.raises(ValueError, match="must come from energy_at"):
        place_of(FGSMPGI(BALL), [x], x, 1.5, 3)
