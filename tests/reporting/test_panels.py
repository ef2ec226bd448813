"""Panels of the dashboard."""

from energy_at.reporting.panels import SECTIONS, curve_panels


def test_panels_are_distinguished_by_their_titles():
    for panels in SECTIONS.values():
        titles = [panel.title for panel in panels]
        assert len(set(titles)) == len(titles)
    labels = [line.label for _, panel in curve_panels() for line in panel.lines]
    assert len(set(labels)) == len(labels)
