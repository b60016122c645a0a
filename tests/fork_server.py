"""Runs programs in forks of a process that has imported the server and read the prices, so that no test waits for that.

    test ── module, arguments, environment, files ──> fork server ── fork ──> program
         <─────────── process id, later the exit status ──┘

`python -m tornado_proxy serve` spends 0.6 of its 0.85 s of CPU time on imports, 0.1 on the price files, and the tests
start some hundred servers.  A fork reads price files again if they have changed, as a reload does.  It ends without
clearing its modules.  It differs from a new process in nothing else: it has its own memory, files, environment and
signals.  Programs that must run before a module is imported, and tests of the start itself, use a new process.

This file is the fork server; tests use forked_program.py.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

#: Bytes.  A request is an environment and some arguments, far less.
_MAX_REQUEST_BYTES = 256 * 1024

#: Files that accompany a request: standard input, output and error of the program, the socket for its exit status.
_FILES = 4

#: The price files of the checkout, as the configurations of the tests name them.
_PRICES = Path(__file__).parent.parent / "conf" / "prices"


@dataclass(frozen=True)
class Request:
    """A program to run, as `python -m MODULE ARGUMENT...` does; `open_files` is its limit of file descriptors."""

    module: str
    arguments: list[str]
    cwd: str
    environment: dict[str, str]
    open_files: tuple[int, int]


class ForkServer:
    """Forks for each request, and reports the exit status of each fork."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        #: The process id and the status socket of each fork, by its process file descriptor.
        self._forks: dict[int, tuple[int, int]] = {}

    def serve(self) -> Request:
        """Serve requests until the tests end; return in each fork, with the program to run."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._report_exit(fd)
                elif (request := self._fork()) is not None:
                    return request

    def _fork(self) -> Request | None:
        """Return the request in the new fork, and None in the server."""
        message, files, _, _ = socket.recv_fds(self._control, _MAX_REQUEST_BYTES, _FILES)
        if not message:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            self._close()
            _use_standard_files(files)
            return Request(**json.loads(message))
        *standard, status = files
        for fd in standard:
            os.close(fd)
        process = os.pidfd_open(pid)
        self._poll.register(process, select.POLLIN)
        self._forks[process] = pid, status
        os.write(status, str(pid).encode())
        return None

    def _report_exit(self, process: int) -> None:
        pid, status = self._forks.pop(process)
        _, code = os.waitpid(pid, 0)
        # The test may have ended.
        with contextlib.suppress(BrokenPipeError):
            os.write(status, str(os.waitstatus_to_exitcode(code)).encode())
        self._poll.unregister(process)
        os.close(process)
        os.close(status)

    def _close(self) -> None:
        self._control.close()
        for process, (_, status) in self._forks.items():
            os.close(process)
            os.close(status)


def _use_standard_files(files: list[int]) -> None:
    for target, fd in enumerate(files[:3]):
        os.dup2(fd, target)
    for fd in files:
        os.close(fd)


def _run(request: Request) -> None:
    """Run a program in this process, which ends with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, request.open_files)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.cwd)
    sys.argv = [request.module, *request.arguments]
    code = 0
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            raise
        code = error.code or 0
    # The program's frames are gone by now.
    _exit(code)


def _exit(code: int) -> NoReturn:
    """End the process as Python does, but leave the modules as they are.

    To clear them takes 0.08 s of CPU time, because it copies each page that the fork shares with its server.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    # Files and sockets that the program has left open raise their warnings.
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)  # Python tells of it
    os._exit(code & 0xFF)


def _main() -> None:
    # Ctrl-C in a terminal reaches this process too; the tests end it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The tests import this file without the server.
    import tornado_proxy.cli.serve  # noqa: F401
    from tornado_proxy.config.price_files import list_valid_documents, read_price_files
    from tornado_proxy.config.validation import check
    from tornado_proxy.domain.config.document import Document
    from tornado_proxy.pricing.book.price_book import PriceBook
    from tornado_proxy.providers.registry import PROVIDERS
    from tornado_proxy.providers.route_table import RouteTable

    PriceBook.from_documents(list_valid_documents(read_price_files(_PRICES)))
    # The validator of the schema and the patterns of paths are compiled once, and cached.
    check(Document("", {}), "proxy")
    RouteTable(PROVIDERS)
    # Collections in the forks would copy every page that holds an object of the modules.
    gc.collect()
    gc.freeze()
    _run(ForkServer(socket.socket(fileno=int(sys.argv[1]))).serve())


if __name__ == "__main__":
    _main()
