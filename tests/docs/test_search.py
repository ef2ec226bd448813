"""Search of samplers (docs/sampling/search.py)."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from energy_at.config.build import make
from energy_at.config.keys import compose_command
from energy_at.sampling.score import HELD_OUT, SAMPLES, START

SCRIPT = Path(__file__).parents[2] / "docs" / "sampling" / "search.py"
spec = importlib.util.spec_from_file_location("search", SCRIPT)
search = sys.modules["search"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(search)


@pytest.mark.parametrize("start", search.STARTS)
def test_a_trial_is_a_sampler_and_no_other_trial_is_the_same(start):
    trials = [search.trial(start, number) for number in range(24)]
    assert trials == [search.trial(start, number) for number in range(24)]
    assert len({tuple(overrides) for overrides in trials}) == 24
    for overrides in trials[:4]:
        own = ["start.images=."] if start == "ood" else []
        cfg = compose_command("sample", ["run=r", *overrides, *own])
        assert cfg.start.name == start
        for group in ("start", "guidance", "sampler"):
            assert make(cfg[group], without=("name",))


def test_the_frontier_is_what_no_other_point_beats():
    points = [tuple(p) for p in torch.randint(0, 9, (40, 2)).tolist()]
    beaten = {
        p for p, q in itertools.product(points, repeat=2)
        if q != p and q[0] <= p[0] and q[1] >= p[1]
    }  # fmt: skip
    assert search.frontier(points) == sorted(set(points) - beaten)


def test_the_figure_shows_the_starts_that_were_tried_and_held_out_images(tmp_path):
    tried = {"noise": [(90, 0.1, 0.3, 0.02), (80, 0.2, 0.3, 0.01)], "local_pca": [(20, 0.4, 0, 0)]}
    for start, trials in tried.items():
        for number, values in enumerate(trials):
            scores = dict(zip(("fid", "recall", "kid", "copied"), values, strict=True))
            alone = {"fid": 99, "recall": 0.1, "kid": 0.5, "copied": 0.05}
            real = {"fid": 5, "recall": 0.7, "kid": 0, "copied": 0.01}
            sets = {SAMPLES: scores, START: alone, HELD_OUT: real}
            folder = tmp_path / start / str(number)
            folder.mkdir(parents=True)
            (folder / "samples.json").write_text(json.dumps({"extractor": "own", "sets": sets}))
    drawn = [
        {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        for axes in search.frontier_figure(tmp_path).axes
    ]
    for name, fid, kid in (
        ("noise", [[80, 0.2]], [[0.3, 0.01]]),
        ("local pca", [[20, 0.4]], [[0, 0]]),
        ("held-out images", [[5, 0.7]], [[0, 0.01]]),
    ):
        assert [panel[name] for panel in drawn] == [fid, kid]
