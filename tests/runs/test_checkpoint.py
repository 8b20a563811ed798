"""Checkpoints come back as they were saved, or say that they do not."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from jxrecon.runs import manifest
from jxrecon.runs.checkpoint import Checkpoints
from jxrecon.types import InputError

SIZE = 96  # the kernel fills files of its own: 96 x 96 random floats do not compress


@struct.dataclass
class State:
    params: dict[str, Any]
    optimiser: Any
    count: jax.Array
    key: jax.Array
    raw_key: jax.Array


def state_of(seed: int, size: int = SIZE) -> State:
    random = np.random.default_rng(seed)
    params = {
        "dense": {
            "kernel": jnp.asarray(random.normal(size=(size, size)), jnp.float32),
            "half": jnp.asarray(random.normal(size=(size, 3)), jnp.bfloat16),
        }
    }
    return State(
        params=params,
        optimiser=optax.adam(1e-3).init(params),
        count=jnp.int32(seed),
        key=jax.random.key(seed),
        raw_key=jax.random.PRNGKey(seed),
    )


def abstract_of(state: State) -> State:
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state
    )


def same(a: Any, b: Any) -> bool:
    def raw(leaf: Any) -> np.ndarray:
        key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if key else leaf)

    def equal(x: Any, y: Any) -> bool:
        return x.dtype == y.dtype and raw(x).tobytes() == raw(y).tobytes()

    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(
        jax.tree.map(equal, a, b)
    )


def saved(folder: Path, metrics: dict[int, float | None]) -> Path:
    checkpoints = Checkpoints(folder)
    for step, metric in metrics.items():
        checkpoints.save(step, state_of(step), metric)
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("two"), {5: None, 10: None})


@pytest.fixture
def folder(two_steps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))


def restored(folder: Path) -> tuple[State, int]:
    checkpoints = Checkpoints(folder, read_only=True)
    found = latest(checkpoints)
    checkpoints.close()
    return found


def latest(checkpoints: Checkpoints) -> tuple[State, int]:
    found = checkpoints.restore_latest_valid(abstract_of(state_of(0)))
    assert found is not None
    return found


def save_durably(checkpoints: Checkpoints, step: int, state: State) -> None:
    checkpoints.save(step, state)
    checkpoints.wait()


def flip(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 0b100
    path.write_bytes(content)


def test_state_comes_back_in_the_same_bits(folder: Path) -> None:
    state, step = restored(folder)
    assert step == 10
    assert same(state, state_of(10))


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path: Path) -> None:
    checkpoints, state, expected = Checkpoints(tmp_path), state_of(1), state_of(1)
    advance = jax.jit(
        lambda s: s.replace(params=jax.tree.map(lambda p: p * 0, s.params)), donate_argnums=0
    )
    checkpoints.save(1, state)
    advance(state)
    checkpoints.close()
    assert same(restored(tmp_path)[0], expected)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).restore_latest_valid(abstract_of(state_of(0))) is None
    with pytest.raises(InputError, match="no such folder"):
        Checkpoints(tmp_path / "nowhere", read_only=True)


def test_latest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, {1: 3.0, 2: 7.0, 3: None, 4: 5.0, 5: None})
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best == (2, 7.0)
    state, step = checkpoints.restore("best", abstract_of(state_of(0)))
    assert step == 2
    assert same(state, state_of(2))
    with pytest.raises(InputError, match=r"no step 3, expected one of \[2, 4, 5\]"):
        checkpoints.restore(3, abstract_of(state_of(0)))


def test_best_without_a_metric_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint with a metric"):
        Checkpoints(folder, read_only=True).restore("best", abstract_of(state_of(0)))


def test_step_is_saved_once(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    checkpoints.save(10, state_of(99))
    checkpoints.close()
    assert same(restored(folder)[0], state_of(10))


@pytest.mark.slow
def test_flipped_bit_anywhere_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(p for p in (folder / "10").rglob("*") if p.is_file() and p.stat().st_size)
    assert len(files) > 8
    checkpoints, expected = Checkpoints(folder, read_only=True), {s: state_of(s) for s in (5, 10)}
    for path in files:
        for position in (0.0, 0.4, 1.0):
            content = path.read_bytes()
            flip(path, position)
            state, step = latest(checkpoints)
            warning = capsys.readouterr().err
            assert same(state, expected[step]), f"{path} at {position}"
            assert step == 5, f"{path} at {position}"
            assert "warning: checkpoint step 10" in warning, f"{path} at {position}"
            path.write_bytes(content)


def test_the_seal_of_a_step_shows_every_flipped_bit(folder: Path) -> None:
    step, random = folder / "10", np.random.default_rng(0)
    files = sorted(p for p in step.rglob("*") if p.is_file() and p.stat().st_size)
    assert {"_CHECKPOINT_METADATA", manifest.NAME} <= {path.name for path in files}
    for n in range(200):
        path = files[n % len(files)]
        content = bytearray(path.read_bytes())
        place, bit = random.integers(len(content)), random.integers(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        assert manifest.damage(step), f"{path}, byte {place}, bit {bit}"
        content[place] ^= 1 << bit
        path.write_bytes(content)
    assert manifest.damage(step) is None


def test_metadata_that_changes_no_number_is_damage_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "10" / "_CHECKPOINT_METADATA"
    path.write_bytes(path.read_bytes().replace(b"timestamp", b"timestemp", 1))
    assert restored(folder)[1] == 5
    assert "_CHECKPOINT_METADATA is missing or has another checksum" in capsys.readouterr().err


def test_a_copy_of_another_step_is_damage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "5", folder / "15")
    assert restored(folder)[1] == 10
    assert "step 15" in (line := capsys.readouterr().err)
    assert "it holds a copy of step 5" in line


def test_a_link_to_the_checkpoints_of_others_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match=r"a link to .*, expected a folder of its own"):
        Checkpoints(tmp_path / "link")
    assert Checkpoints(tmp_path / "link", read_only=True).steps() == [5, 10]


def test_flipped_bit_in_the_numbers_names_step_and_array(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    largest = max(
        (p for p in (folder / "10").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    flip(largest, 0.5)
    state, step = restored(folder)
    assert step == 5
    assert same(state, state_of(5))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"checkpoint step 10 in {folder} is damaged: params/dense/" in line
    assert "going back to step 5" in line


@pytest.mark.slow
def test_truncated_and_missing_files_are_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints, expected = Checkpoints(folder, read_only=True), {s: state_of(s) for s in (5, 10)}
    for path in sorted(
        p for p in (folder / "10").rglob("*") if p.is_file() and p.stat().st_size > 100
    ):
        content = path.read_bytes()
        for damage in ("half", "none"):
            if damage == "half":
                path.write_bytes(content[: len(content) // 2])
            else:
                path.unlink()
            state, step = latest(checkpoints)
            warning = capsys.readouterr().err
            assert same(state, expected[step]), f"{path} {damage}"
            assert (step == 5) == ("going back to step 5" in warning), f"{path} {damage}"
            path.write_bytes(content)


def test_empty_step_folder_is_passed_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "15").mkdir()
    assert restored(folder)[1] == 10
    assert "checkpoint step 15" in capsys.readouterr().err


def test_rewind_lets_a_damaged_step_be_saved_again(folder: Path) -> None:
    (folder / "15").mkdir()
    checkpoints = Checkpoints(folder)
    checkpoints.rewind(latest(checkpoints)[1])
    assert checkpoints.steps() == [5, 10]
    checkpoints.save(15, state_of(15))
    checkpoints.close()
    assert same(restored(folder)[0], state_of(15))


def test_all_damaged_is_an_error(folder: Path) -> None:
    for step in ("5", "10"):
        shutil.rmtree(folder / step)
        (folder / step).mkdir()
    with pytest.raises(InputError, match=r"step 5 .* no earlier one is left"):
        restored(folder)


def test_leftover_of_a_killed_save_is_cleared(folder: Path) -> None:
    leftover = folder / "20.orbax-checkpoint-tmp"
    leftover.mkdir()
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps() == [5, 10]
    checkpoints.save(11, state_of(11))
    checkpoints.close()
    assert not leftover.exists()


def test_state_of_another_model_is_refused(folder: Path) -> None:
    checkpoints = Checkpoints(folder, read_only=True)
    abstract = abstract_of(state_of(0))

    def line(state: Any) -> str:
        with pytest.raises(InputError) as error:
            checkpoints.restore_latest_valid(state)
        return str(error.value)

    shapes = f"params/dense/half is bfloat16[{SIZE}, 3], expected bfloat16[8, 3]"
    assert shapes in line(abstract_of(state_of(0, size=8)))
    assert "count is int32[], expected int64[]" in line(
        abstract.replace(
            count=jax.ShapeDtypeStruct((), jnp.int64, sharding=abstract.count.sharding)
        )
    )
    assert "lacks params/other" in line(
        abstract.replace(params={**abstract.params, "other": abstract.count})
    )
    assert "has params/dense/half (1 such arrays)" in line(
        abstract.replace(params={"dense": {"kernel": abstract.params["dense"]["kernel"]}})
    )


def test_nan_is_not_saved(folder: Path) -> None:
    checkpoints, state = Checkpoints(folder), state_of(11)
    state.params["dense"]["half"] = state.params["dense"]["half"].at[3, 1].set(jnp.nan)
    with pytest.raises(FloatingPointError, match="params/dense/half holds NaN"):
        checkpoints.save(11, state)
    assert checkpoints.steps() == [5, 10]


def test_full_disk_leaves_the_checkpoints_before_intact(folder: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails half-way all the same."""
    checkpoints, big = Checkpoints(folder), state_of(11, size=256)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(
            InputError, match=r"step 11 could not be written .* are intact"
        ) as error:
            save_durably(checkpoints, 11, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "5"]
    checkpoints.close()  # does not wait for what has failed
    assert Checkpoints(folder).steps() == [5, 10]
    assert same(restored(folder)[0], state_of(10))
