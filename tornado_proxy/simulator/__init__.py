"""Simulated providers for demos, tests and benchmarks: both APIs on one port, with usage that adds up.

It imports nothing of the proxy but domain, so it cannot repeat the proxy's errors (docs/simulator.md).
"""

from tornado_proxy.simulator.request_log import RecordedRequest
from tornado_proxy.simulator.simulator import Simulator
from tornado_proxy.simulator.simulator_thread import running_simulator

__all__ = ["RecordedRequest", "Simulator", "running_simulator"]
