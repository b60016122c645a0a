"""The helpers without the extra `sdk`, and the names that the package exports."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tornado_proxy.sdk
from tests.harness import ROOT

#: Fails the import of a package as if it were not installed, then runs the statement in sys.argv[2].
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
exec(sys.argv[2])
"""


def run_without(packages: str, statement: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, statement], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_package_and_helpers_import_without_the_extra() -> None:
    imported = run_without(
        "openai,anthropic,httpx,httpx2", "import tornado_proxy, tornado_proxy.sdk, tornado_proxy.cli"
    )

    assert (imported.returncode, imported.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("get_openai_client", "openai"),
        ("get_async_openai_client", "openai"),
        ("OpenAIResponsesAdapter", "openai"),
        ("get_anthropic_client", "anthropic"),
        ("get_async_anthropic_client", "anthropic"),
        ("AnthropicMessagesAdapter", "anthropic"),
        ("get_logging_http_client", "httpx2"),
    ],
)
def test_helper_without_its_package_names_the_extra(name: str, package: str) -> None:
    failed = run_without(package, f"from tornado_proxy.sdk import {name}")

    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        f"ImportError: {name} needs the package {package}; pip install 'tornado-proxy[sdk]'"
    )


def test_helpers_of_one_provider_need_no_package_of_the_other() -> None:
    used = run_without(
        "openai,httpx", "from tornado_proxy.sdk import AnthropicMessagesAdapter, get_logging_http_client"
    )

    assert (used.returncode, used.stderr) == (0, "")


def test_helpers_load_no_other_part_of_the_package() -> None:
    statement = (
        "from tornado_proxy.sdk import *; import sys;"
        "print([n for n in sys.modules if n.startswith('tornado_proxy.') and '.sdk' not in n])"
    )

    assert run_without("", statement).stdout == "[]\n"


def test_every_exported_name_exists_and_others_do_not() -> None:
    assert [name for name in tornado_proxy.sdk.__all__ if not callable(getattr(tornado_proxy.sdk, name))] == []
    assert tornado_proxy.sdk.__all__ == sorted(tornado_proxy.sdk.__all__)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        tornado_proxy.sdk.other  # noqa: B018  # it raises
