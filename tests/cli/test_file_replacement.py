from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tornado_proxy.cli.file_replacement import replace_file


def test_new_file_is_created(tmp_path: Path) -> None:
    replace_file(tmp_path / "projects.yaml", "a")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("projects.yaml", "a")]


@pytest.fixture
def other_file_system() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108  # the file system is the point
    if not memory.is_dir() or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_link_to_another_file_system_stays_one_and_its_target_keeps_its_mode(
    tmp_path: Path, other_file_system: Path
) -> None:
    target, link = other_file_system / "projects.yaml", tmp_path / "projects.yaml"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)

    replace_file(link, "new")

    assert link.is_symlink()
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)
    assert [path.name for path in tmp_path.iterdir()] == ["projects.yaml"]


def test_folder_cannot_be_replaced_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "projects.yaml").mkdir()

    with pytest.raises(click.ClickException, match=r"projects\.yaml cannot be written"):
        replace_file(tmp_path / "projects.yaml", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["projects.yaml"]
