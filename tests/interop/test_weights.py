"""Converting parameters loses nothing, refuses what does not fit, and keeps what PyTorch's layers mean."""

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.interop.weights import (
    BUFFERS,
    Buffer,
    Parameter,
    from_torch,
    to_ours,
    to_theirs,
    to_torch,
    x2ct_discriminator,
    x2ct_generator,
)
from jxrecon.nn.conv import conv, conv_transpose
from jxrecon.types import InputError

SHAPES = {
    "conv": (2, 3, 3, 3, 3),
    "conv_transpose": (3, 2, 3, 3, 3),
    "linear": (5, 4),
    "vector": (6,),
}


def state_of(table):
    """A state dict with every tensor of a table and small arrays of the rank that its rule needs."""
    rng = np.random.default_rng(0)
    state = {
        row.torch: rng.normal(size=SHAPES[row.rule]).astype(np.float32)
        for row in table
        if isinstance(row, Parameter)
    }
    for row in table:
        if isinstance(row, Buffer):
            channels = state[row.weight].shape[row.axis]
            values = (rng.normal(size=channels), rng.random(channels), 7)
            state |= {
                f"{row.torch}.{name}": np.asarray(value) for name, value in zip(BUFFERS, values)
            }
    return state


@pytest.mark.parametrize("table", [x2ct_generator(2), x2ct_generator(1), x2ct_discriminator()])
def test_there_and_back_is_bit_identical(table):
    state = state_of(table)
    back = to_torch(from_torch(state, table), table, buffers=state)
    assert set(back) == set(state)
    assert all(back[key].tobytes() == np.ascontiguousarray(state[key]).tobytes() for key in state)


def test_the_biplanar_state_dict_has_the_official_1755_entries():
    table = x2ct_generator(2)
    norms = sum(isinstance(row, Buffer) for row in table)
    assert (len(table) - norms, norms, len(table) - norms + 3 * norms) == (708, 349, 1755)


def test_running_statistics_not_given_are_those_pytorch_starts_with():
    table = x2ct_discriminator()
    state = to_torch(from_torch(state_of(table), table), table)
    assert not state["model.3.running_mean"].any()
    assert (state["model.3.running_var"] == 1).all()
    assert state["model.3.num_batches_tracked"].dtype == np.int64


@pytest.mark.parametrize("rule", SHAPES)
def test_layouts_undo_each_other(rule):
    value = np.random.default_rng(1).normal(size=SHAPES[rule])
    np.testing.assert_array_equal(to_theirs(to_ours(value, rule), rule), value)


def test_a_converted_kernel_does_what_pytorchs_definition_says():
    rng = np.random.default_rng(2)
    x, weight = (
        rng.normal(size=(3, 4, 5)),
        rng.normal(size=(2, 3, 3, 3)),
    )  # [C, H, W], [O, I, kh, kw]
    expected = [
        [[np.sum(x[:, r : r + 3, c : c + 3] * w) for c in range(3)] for r in range(2)]
        for w in weight
    ]
    image = jnp.asarray(x.transpose(1, 2, 0)[None], jnp.float32)
    got = conv(image, jnp.asarray(to_ours(weight, "conv"), jnp.float32), padding=0)
    np.testing.assert_allclose(np.moveaxis(got[0], -1, 0), expected, rtol=1e-4, atol=1e-5)

    weight = rng.normal(size=(3, 2, 3, 3))  # [I, O, kh, kw]
    whole = np.zeros((2, 2 * 4 + 2, 2 * 5 + 2))
    for r in range(4):
        for c in range(5):
            taps = np.einsum("i,iohw->ohw", x[:, r, c], weight)
            whole[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3] += taps
    kernel = jnp.asarray(to_ours(weight, "conv_transpose"), jnp.float32)
    got = conv_transpose(image, kernel, 2, [(1, 0)] * 2)
    expected = whole[:, 1:9, 1:11]  # padding 1, output padding 1
    np.testing.assert_allclose(np.moveaxis(got[0], -1, 0), expected, rtol=1e-4, atol=1e-5)


def test_missing_and_unknown_tensors_are_named():
    table = x2ct_discriminator()
    state = state_of(table)
    short = {key: value for key, value in state.items() if not key.startswith("model.11")}
    with pytest.raises(InputError, match=r"model\.11\.bias is missing \(and 1 more\)"):
        from_torch(short, table)
    with pytest.raises(InputError, match=r"module\.x is unknown"):
        from_torch({**state, "module.x": state["model.0.bias"]}, table)
    params = from_torch(state, table)
    with pytest.raises(InputError, match="is missing"):
        to_torch(params, x2ct_generator(2))
    params["params"]["conv_9"] = {"kernel": np.zeros(3)}
    with pytest.raises(InputError, match="8 tensors, expected the 7"):
        to_torch(params, table)
