"""Every entry point ends bad input in one line and an exit code."""

from __future__ import annotations

import errno
import tomllib
from pathlib import Path

import jax
import pytest

from jxrecon import cli, compile
from jxrecon.cli import entry
from jxrecon.files import cache_folder
from jxrecon.types import InputError


def raising(error: BaseException) -> int:
    def main(arguments: list[str] | None) -> int:
        raise error

    return entry(main)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JXRECON_NO_CACHE", "1")


def test_entry_hands_on_arguments_and_exit_code() -> None:
    assert entry(lambda arguments: len(arguments or []), ["a", "b", "c"]) == 3
    assert entry(lambda arguments: 0 if arguments is None else 1) == 0


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
    try:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(before))
        entry(lambda arguments: 0)
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        entry(lambda arguments: 0)
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jxrecon" / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_this_jaxlib_compiles_right() -> None:
    compile.check_compiler()


def test_compile_tells_of_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile, "_ROWS", 32_641)  # ends in the number that jaxlib 0.10.2 computes
    with pytest.raises(InputError, match=r"computes 1\.0654e\+09 where 1\.0737e\+09 is right"):
        compile.check_compiler()


def test_every_console_script_runs_the_entry_point_of_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    scripts = tomllib.loads(text)["project"]["scripts"]
    assert {"jxrecon-style", "jxrecon-prepare"} < set(scripts)
    monkeypatch.setattr("sys.argv", ["x", "--help"])
    for script, target in scripts.items():
        name = script.removeprefix("jxrecon-")
        assert target == f"jxrecon.cli:{name}"
        with pytest.raises(SystemExit):
            getattr(cli, name)()
        assert f"usage: python -m jxrecon.{name} " in capsys.readouterr().out
