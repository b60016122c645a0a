"""A provider stand-in for demos, tests and benchmarks: both APIs on one port, with usage that adds up.

It stands beside the proxy: it knows nothing of it, and the proxy knows nothing of it (docs/simulator.md).
"""

from tornado_proxy.simulator.request_log import SeenRequest
from tornado_proxy.simulator.simulator import Simulator
from tornado_proxy.simulator.simulator_thread import running_simulator

__all__ = ["SeenRequest", "Simulator", "running_simulator"]
