"""requirements.lock satisfies setup.cfg, pins every package that is installed with it, and names no index."""

from __future__ import annotations

import configparser
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.harness import ROOT

LOCK = (ROOT / "requirements.lock").read_text("utf-8")

#: The systems that the lock is for: Linux on x86_64, with each version of Python.
VERSIONS = ["3.11", "3.12", "3.13"]


def read_pins() -> dict[str, Requirement]:
    """Return the pinned packages by name."""
    pins = [Requirement(line.removesuffix("\\")) for line in LOCK.splitlines() if line and not line.startswith(" ")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def read_declared() -> list[Requirement]:
    """Return the requirements of a server: setup.cfg without the extras for development and other programs."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"]]
    texts += [text for extra, text in config["options.extras_require"].items() if extra not in ("dev", "sdk")]
    return [Requirement(line) for text in texts for line in text.splitlines() if line.strip()]


PINS = read_pins()


def environment(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "extra": "",
    }


def find_pin(wanted: Requirement, python: str) -> str | None:
    """Return the version that the lock installs for a requirement, None if it installs none."""
    pin = PINS.get(canonicalize_name(wanted.name))
    if pin is None or (pin.marker is not None and not pin.marker.evaluate(environment(python))):
        return None
    (pinned,) = pin.specifier
    return pinned.version


@pytest.mark.parametrize("python", VERSIONS)
def test_lock_satisfies_the_ranges_of_setup_cfg(python: str) -> None:
    declared = [
        wanted for wanted in read_declared() if not wanted.marker or wanted.marker.evaluate(environment(python))
    ]
    found = {str(wanted): find_pin(wanted, python) for wanted in declared}

    assert len(declared) >= 19
    assert [wanted for wanted in declared if not wanted.specifier.contains(found[str(wanted)] or "0")] == []


def test_lock_holds_what_its_packages_require() -> None:
    """Compare with the packages that are installed here, if they have the pinned version."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    missing, compared = [], 0
    for name in PINS:
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        if installed != find_pin(PINS[name], python):
            continue
        compared += 1
        for wanted in map(Requirement, requires(name) or ()):
            if wanted.marker is None or wanted.marker.evaluate(environment(python)):
                pinned = find_pin(wanted, python)
                if pinned is None or not wanted.specifier.contains(pinned):
                    missing.append(f"{name} requires {wanted}")

    assert missing == []
    assert compared >= 10


def test_each_pin_is_exact_and_has_hashes() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())

    assert [pin.name for pin in PINS.values() if not re.fullmatch(r"==[\w.]+", str(pin.specifier))] == []
    assert [entry.split()[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []
    assert len(entries) == len(PINS)


def test_lock_names_no_index() -> None:
    assert re.findall(r"https?:|--(?:extra-)?index-url|--find-links| @ ", LOCK) == []
