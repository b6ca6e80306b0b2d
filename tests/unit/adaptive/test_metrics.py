"""What Prometheus is told about processing."""

from __future__ import annotations

from bluesky_plugins.adaptive.metrics import Metrics
from bluesky_plugins.processing import Tally


def test_jobs_ends_queries_and_waits_are_told_for_each_target() -> None:
    metrics, tally = Metrics(), Tally()
    tally.query("slurm", failed=False)
    tally.query("slurm", failed=True)
    tally.ended["slurm", "failed"] += 2
    tally.began["local"], tally.waited_s["local"] = 4, 1.5
    metrics.processing({("slurm", "queued"): 3}, 1, tally)
    lines = set(metrics.text().decode().splitlines())
    assert lines >= {
        'bluesky_plugins_processing_jobs{state="queued",target="slurm"} 3.0',
        "bluesky_plugins_processing_trouble 1.0",
        'bluesky_plugins_processing_ended_total{state="failed",target="slurm"} 2.0',
        'bluesky_plugins_processing_queries_total{target="slurm"} 2.0',
        'bluesky_plugins_processing_queries_failed_total{target="slurm"} 1.0',
        'bluesky_plugins_processing_seconds_to_running_count{target="local"} 4.0',
        'bluesky_plugins_processing_seconds_to_running_sum{target="local"} 1.5',
    }


def test_without_processing_nothing_is_told_of_it() -> None:
    assert "bluesky_plugins_processing" not in Metrics().text().decode()
