"""ROC curves of the scores that separate natural images from others."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from energy_at.analysis.detection import SCORES
from energy_at.analysis.figures import WIDTH, run_title, sheet
from energy_at.analysis.tables import View
from energy_at.reporting.figures import ATTACK_STYLES, METHOD_COLORS

_OOD = [color for name, color in METHOD_COLORS.items() if name]  # solid; attacks are dashed
_AXES = ("others that pass", "natural images that pass")


def roc(view: View) -> Figure:
    """A row for each score, a column for each run; of one run, the scores are side by side."""
    across = len(view.runs) if view.has_columns else len(SCORES)
    down = len(SCORES) if view.has_columns else 1
    handles: dict[str, Line2D] = {}
    with sheet(WIDTH, 0.9 + 2.1 * down, view.title) as figure:
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        panels = grid if view.has_columns else grid.T
        for column, (run, landscape) in enumerate(view.runs.items()):
            found = landscape.detection
            assert found is not None
            for row, score in enumerate(SCORES):
                axes = panels[row, column]
                axes.set_title(
                    score if not view.has_columns else f"{run_title(view, run)}\n{score}"
                )
                axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.6, zorder=0)
                axes.set_aspect("equal")
                for i, (kind, name, others) in enumerate(found.sets()):
                    if kind == "ood":
                        label, style = name, {"color": _OOD[i % len(_OOD)]}
                    else:
                        label, style = view.labels[name], {"color": ATTACK_STYLES[name][0]}
                        style["linestyle"] = "--"
                    fpr, tpr = found.rates(others, score).roc
                    (line,) = axes.plot(fpr, tpr, linewidth=1.1, label=label, **style)
                    handles.setdefault(label, line)
        for axes in grid[-1]:
            axes.set_xlabel(_AXES[0])
        for axes in grid[:, 0]:
            axes.set_ylabel(_AXES[1])
        figure.legend(
            handles=list(handles.values()), loc="outside lower center", ncols=4, frameon=False
        )
    return figure
