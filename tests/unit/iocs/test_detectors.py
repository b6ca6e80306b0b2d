import pytest

from bluesky_plugins.iocs.detectors import peak


def test_peak_is_highest_at_its_center():
    assert peak([12.0], [12.0], width=4.0, height=1000.0) == 1000.0


def test_peak_falls_to_its_width():
    assert peak([16.0], [12.0], width=4.0, height=1000.0) == pytest.approx(606.5306597)


def test_peak_of_two_motors_needs_two_centers():
    with pytest.raises(ValueError, match="zip"):
        peak([1.0, 2.0], [1.0], width=1.0, height=1.0)
