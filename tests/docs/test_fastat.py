"""The replay of public curves: a collapse is found at its epoch, a healthy run raises nothing."""

import gzip
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "sentinel" / "fastat.py"
HEADER = "dataset,method,seed,epoch,val_fgsm,val_pgd10\n"


def script():
    spec = spec_from_file_location("fastat", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(path, runs):
    rows = [
        f"cifar10,{method},0,{epoch},{fgsm},{pgd}\n"
        for method, curve in runs.items()
        for epoch, (fgsm, pgd) in enumerate(curve, 1)
    ]
    with gzip.open(path, "wt") as file:
        file.write(HEADER + "".join(rows))
    return str(path)


def test_a_collapse_is_detected_and_a_healthy_run_is_silent(tmp_path):
    fastat = script()
    healthy = [(0.4 + 0.01 * e, 0.38 + 0.01 * e) for e in range(8)]
    collapses = [*healthy[:5], (0.7, 0.1), (0.8, 0.0), (0.8, 0.0)]
    path = written(tmp_path / "curves.csv.gz", {"healthy": healthy, "collapses": collapses})
    runs = fastat.curves(path, "val")
    assert [fastat.first_alarm(curve, classes, 0.4) for classes, curve in runs] == [None, 6]
    assert fastat.score(runs, 0.4) == ["1 of 1", "0 of 1", "0 [0, 0]", "0"]
