"""Networks of timm, torchvision and a user's own, behind the normalization of the data set."""

import functools
import re

import pytest
import torch
from torch import nn

from energy_at.core.extras import install
from energy_at.models import custom, mlp_mixer, timm, torchvision
from energy_at.models.layers import make_convolutions_safe

COLOUR = {"channels": 3, "classes": 4, "size": 16, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
GREY = {"channels": 1, "classes": 4, "size": 16, "mean": [0.4], "std": [0.2]}


def normalized(x, about):
    mean, std = (torch.tensor(about[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    return (x - mean) / std


@pytest.mark.parametrize("about", [COLOUR, GREY], ids=["colour", "grey"])
def test_a_network_of_timm_is_that_of_timm_on_normalized_images(about):
    library = pytest.importorskip("timm")
    options = {"num_classes": 4, "in_chans": about["channels"]}
    x = torch.rand(3, about["channels"], 16, 16)
    for name, own in {"test_resnet": {}, "test_vit": {"patch_size": 4}}.items():
        net = timm(name=name, **own, **about).eval()
        sizes = {"img_size": 16} if name == "test_vit" else {}
        theirs = library.create_model(name, **options, **own, **sizes).eval()
        theirs.load_state_dict(net.net.state_dict())
        assert torch.equal(net(x), theirs(normalized(x, about)))


def test_a_network_of_torchvision_is_that_of_torchvision_and_takes_grey_images():
    from torchvision import models

    for about in (COLOUR, GREY):
        x = torch.rand(2, about["channels"], 16, 16)
        net = torchvision(name="squeezenet1_1", **(about | {"size": 32})).eval()
        x = nn.functional.interpolate(x, 32)
        theirs = models.squeezenet1_1(num_classes=4).eval()
        theirs.load_state_dict(net.net.state_dict())
        assert torch.equal(net(x), theirs(normalized(x, about).expand(-1, 3, -1, -1)))


def test_an_argument_of_the_function_that_makes_a_network_of_torchvision_reaches_it():
    whole, half = (
        torchvision(name="mobilenet_v3_small", **COLOUR, **own) for own in ({}, {"width_mult": 0.5})
    )
    assert half.net.features[0][0].out_channels < whole.net.features[0][0].out_channels


def test_an_mlp_mixer_is_that_of_timm_on_normalized_images():
    mixer = pytest.importorskip("timm.models.mlp_mixer").MlpMixer
    for about in (COLOUR, GREY):
        net = mlp_mixer(**about, patch_size=4, width=8, depth=3).eval()
        theirs = mixer(num_classes=4, in_chans=about["channels"], img_size=16, patch_size=4,
                       embed_dim=8, num_blocks=3).eval()  # fmt: skip
        theirs.load_state_dict(net.net.state_dict())
        x = torch.rand(3, about["channels"], 16, 16)
        assert torch.equal(net(x), theirs(normalized(x, about)))


def test_stochastic_depth_and_dropout_reach_the_network():
    pytest.importorskip("timm")
    plain = timm(name="test_vit", **COLOUR)
    random = timm(name="test_vit", drop_rate=0.5, drop_path_rate=0.5, **COLOUR)
    x = torch.rand(4, 3, 16, 16)
    assert torch.equal(plain(x), plain(x))
    assert not torch.equal(random(x), random(x))
    assert torch.equal(random.eval()(x), random(x))


class Own(nn.Module):
    def __init__(self, classes, channels=2, width=5):
        super().__init__()
        self.sizes = (classes, channels, width)
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, classes))

    def forward(self, x):
        return self.layers(x)


def test_an_own_network_gets_what_it_takes_and_lazy_layers_their_sizes():
    net = custom(net=functools.partial(Own, width=7), **COLOUR)
    assert net.net.sizes == (4, 3, 7)
    assert net.net.layers[1].weight.shape == (7, 3 * 16 * 16)
    assert net.training
    assert net.net.training
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(net(x), net.net(normalized(x, COLOUR)))


REFUSED = [
    (timm, {"name": "resnett26d"}, r"^name must be the name of a network of timm \(did you mean"),
    (timm, {"name": "hf-hub:someone/net"}, "^name must be the name of a network of timm"),
    (timm, {"name": "local-dir:net"}, "^name must be the name of a network of timm"),
    (timm, {"name": "test_vit", "checkpoint_path": "f.pt"}, "^checkpoint_path must be left out"),
    (timm, {"name": "test_vit", "drop_rate": 1.0}, "^drop_rate must be a finite number"),
    (timm, {"name": "test_vit", "patch_size": 0}, "^name must be a network that can be made so: "),
    (
        mlp_mixer,
        {"patch_size": 5},
        "^patch_size must be an integer >= 1 of which the image size, 16",
    ),
    (
        mlp_mixer,
        {"patch_size": 0},
        "^patch_size must be an integer >= 1 of which the image size, 16",
    ),
    (mlp_mixer, {"width": 0}, "^width must be an integer >= 1"),
    (timm, {"name": "test_vit", "wings": 2}, "^name must be a network that can be made so: .*wing"),
    (torchvision, {"name": "resnet17"}, r"^name must be .* \(did you mean resnet18\?\)"),
    (torchvision, {"name": "resnet18", "weights": "DEFAULT"}, "^weights must be left out"),
    *(
        (torchvision, {"name": name, "wings": 2}, f"^wings must be left out: {name} takes none")
        for name in ("mobilenet_v3_small", "convnext_tiny")  # which ignore what they do not know
    ),
    (torchvision, {"name": "vit_b_16", "size": 20}, "^name must be a network that can be made so"),
    (
        custom,
        {"net": lambda: "net", "target": "mine.net"},
        "^target must be a torch.nn.Module, or a",
    ),
]


@pytest.mark.parametrize(("make", "options", "said"), REFUSED)
def test_what_is_no_network_is_refused_in_one_line(make, options, said):
    if make in (timm, mlp_mixer):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=said) as caught:
        make(**(COLOUR | options))
    assert "\n" not in str(caught.value)


def test_without_timm_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=re.escape(install("timm"))):
        timm(name="resnet18", **COLOUR)
    with pytest.raises(ImportError, match=r"^model=mlp_mixer needs timm: pip install"):
        mlp_mixer(**COLOUR)


def test_safe_convolutions_compute_the_same():
    layers = [nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(4, 6, 1, stride=(1, 2), bias=False)]
    net, x = nn.Sequential(*layers), torch.rand(2, 3, 9, 9, dtype=torch.float64)
    net = net.double()
    before = net(x)
    make_convolutions_safe(net)
    assert {type(layer) for layer in net} != {nn.Conv2d}
    torch.testing.assert_close(net(x), before)
