"""A real Ray of two workers on this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def local_ray(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "120000")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra 'ray')")
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=80 * 2**20,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(tmp_path_factory.getbasetemp().parent / "ray")[:40],
    )
    try:
        yield ray
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, on_sigterm)
