"""The wheel that the image installs holds everything the program needs outside of its repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.deployment import ROOT, copied, in_context

PACKAGES = ("domain", "projections", "adapters", "api", "sql")

#: Imports from the installed copy, and reads every kind of data file.
PROBE = """
import sys
from pathlib import Path
import adapters, api, domain, projections, sql
for package in (adapters, api, domain, projections, sql):
    assert Path(package.__file__).is_relative_to(sys.argv[1]), package.__file__
for context in sys.argv[2:]:
    assert sql.queries(context).available_queries, context
from adapters.analysis import OfflineAnalyser
from adapters.embeddings import OfflineEmbedder
from adapters.migration_files import SQL_DIRECTORY, load_manifest
from api.demo_data import SEARCHES, envelopes
from adapters.analysis.contract import parse
from adapters.analysis.rendering import BUILT_IN, render
assert render(BUILT_IN).system, parse
assert load_manifest(SQL_DIRECTORY).latest > 0
OfflineAnalyser(), OfflineEmbedder()
assert SEARCHES
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as the Dockerfile does: from what it copies, and from nothing else."""
    context = tmp_path_factory.mktemp("context")
    wheels = tmp_path_factory.mktemp("wheels")
    for stage, sources, destination in copied():
        if stage.name != "wheel":
            continue
        for source in sources:
            if (ROOT / source).is_file():
                assert destination == "./"
                shutil.copy(ROOT / source, context)
            else:
                assert destination == source
                shutil.copytree(ROOT / source, context / source, ignore=_ignored)
    _run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), ".", cwd=context)
    (built,) = wheels.iterdir()
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which the wheel alone is installed."""
    target = tmp_path_factory.mktemp("site")
    _run("-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target)
    return target


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    expected = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and in_context(file.relative_to(ROOT).as_posix())
    }
    assert {Path(name).suffix for name in expected} >= {".sql", ".toml", ".jsonl", ".txt"}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    assert packed == expected
    assert len(licences) == 1


def test_the_installed_program_finds_its_data(site: Path, tmp_path: Path) -> None:
    contexts = sorted(file.stem for file in (ROOT / "sql" / "queries").glob("*.sql"))
    assert contexts
    _run("-c", PROBE, str(site), *contexts, cwd=tmp_path, path=site)


def test_the_installed_program_has_its_command_line(site: Path, tmp_path: Path) -> None:
    output = _run("-m", "api.cli", "--help", cwd=tmp_path, path=site)
    for command in ("migrate", "admin", "api", "projector", "relay", "worker", "healthcheck", "status"):
        assert f" {command} " in output
    assert (site / "bin" / "evosense").exists()


def _ignored(directory: str, names: list[str]) -> list[str]:
    within = Path(directory).relative_to(ROOT)
    return [name for name in names if not in_context((within / name).as_posix())]


def _run(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
