"""Every entry point ends bad input in one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

import jxrecon
from jxrecon import compile
from jxrecon.__main__ import COMMANDS, command
from jxrecon.cli import command_parser, entry
from jxrecon.files import cache_folder
from jxrecon.types import InputError

REPOSITORY = Path(__file__).resolve().parents[1]


def parser() -> argparse.ArgumentParser:
    made = command_parser("count", "Counts words.", "jxrecon count a b")
    made.add_argument("words", nargs="*")
    return made


def raising(error: BaseException) -> int:
    def main(options: argparse.Namespace) -> int:
        raise error

    return entry(parser, main, [])


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JXRECON_NO_CACHE", "1")


def test_entry_hands_on_arguments_and_exit_code() -> None:
    assert entry(parser, lambda options: len(options.words), ["a", "b", "c"]) == 3
    assert entry(parser, lambda options: len(options.arguments), ["a", "--", "b"]) == 3


def test_the_compiler_is_checked_before_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compile, "_ROWS", 32_641)  # ends in the number that jaxlib 0.10.2 computes
    assert entry(parser, lambda options: 0, []) == 2
    assert "jax#39103" in capsys.readouterr().err


def test_what_must_come_before_jax_comes_before_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(compile, "check_compiler", lambda: order.append("check"))
    assert entry(parser, lambda options: 0, [], before=lambda options: order.append("before")) == 0
    assert order == ["before", "check"]


def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(InputError("ct.nii.gz: found 2 axes,\n  expected 3")) == 2
    assert capsys.readouterr().err == "error: ct.nii.gz: found 2 axes, expected 3\n"


def test_full_disk_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(OSError(errno.ENOSPC, "No space left on device", "runs/a/cases.csv")) == 2
    assert capsys.readouterr().err == "error: runs/a/cases.csv: No space left on device\n"


def test_interrupt_is_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("a"), OSError(errno.EBADF, "b"), ZeroDivisionError()])
def test_mistakes_of_the_program_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        raising(error)


def test_caches_lie_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() is None
    monkeypatch.delenv("JXRECON_NO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "jxrecon"
    before = jax.config.jax_compilation_cache_dir
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(before))
        entry(parser, lambda options: 0, [])
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        entry(parser, lambda options: 0, [])
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jxrecon" / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def test_small_programs_are_kept_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "jax_persistent_cache_min_compile_time_secs"
    least = getattr(jax.config, name)
    try:
        jax.config.update(name, 3.0)
        monkeypatch.setenv(name.upper(), "3")
        entry(parser, lambda options: 0, [])
        assert getattr(jax.config, name) == 3.0
        monkeypatch.delenv(name.upper())
        entry(parser, lambda options: 0, [])
        assert getattr(jax.config, name) == 0.0
    finally:
        jax.config.update(name, least)


def test_this_jaxlib_compiles_right() -> None:
    compile.check_compiler()


def test_compile_tells_of_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile, "_ROWS", 32_641)  # ends in the number that jaxlib 0.10.2 computes
    with pytest.raises(InputError, match=r"computes 1\.0654e\+09 where 1\.0737e\+09 is right"):
        compile.check_compiler()


def test_the_console_script_knows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"jxrecon": "jxrecon.__main__:command"}
    assert command(["--help"]) == 0
    told = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in told
        with pytest.raises(SystemExit) as ended:
            command([name, "--help"])
        assert ended.value.code == 0
        told_more = capsys.readouterr().out
        assert f"usage: jxrecon {name} " in told_more
        assert "example: jxrecon " in told_more


def test_the_version_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--version"]) == 0
    assert capsys.readouterr().out == f"jxrecon {version('jxrecon')}\n"
    assert command(["trian"]) == 2
    assert capsys.readouterr().err.startswith("error: jxrecon trian: expected one of demo, train,")


def test_citation_and_changelog_are_of_this_version() -> None:
    assert f"\nversion: {jxrecon.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    newest = next(line for line in changes.splitlines() if line.startswith("## "))
    assert newest.split()[1] == jxrecon.__version__


@pytest.mark.parametrize("name", ["--help", *COMMANDS])
def test_help_imports_neither_jax_nor_numpy(name: str) -> None:
    arguments = [name] if name == "--help" else [name, "--help"]
    code = (
        "import sys; from jxrecon.__main__ import command\n"
        f"try: command({arguments})\nexcept SystemExit: pass\n"
        "print(sorted({'jax', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
