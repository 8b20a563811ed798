"""Who calls back while a volume is found: JAX keeps no compiled program that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jxrecon.geometry import biplanar
from jxrecon.inference.patient import Request, find_in_xrays
from jxrecon.inference.volumes import untrained
from jxrecon.io.radiographs import Radiograph
from jxrecon.runs import shipped


def called_back(say: Callable[[str], None] | None, weights: str | None) -> bool:
    """Whether the method is given somebody to call."""
    run, given = untrained("sirt", (8, 8, 8), (20.0, 20.0, 20.0)), []

    def spy(state: Any, images: Any, cameras: Any, key: Any, progress: Any) -> Any:
        given.append(progress)
        return run.method.reconstruct(state, images, cameras, key, progress)

    spied = run._replace(method=run.method._replace(reconstruct=spy))
    if weights is not None:
        spied = spied._replace(weights=shipped.path_of(weights))
    centre, image = np.zeros(3), np.ones((16, 16), np.float32)
    cameras = biplanar(shape=(16, 16), pixel_mm=20.0)
    xrays = [Radiograph(image, camera, "view", centre) for camera in cameras]
    find_in_xrays(spied, xrays, Request(progress=say, xrays="field"))
    (progress,) = given
    return progress is not None


@pytest.mark.parametrize(
    ("say", "weights", "expected"),
    [(print, None, True), (None, None, False), (print, "lift_hn", False)],
)
def test_programs_that_are_to_be_kept_call_nobody(
    say: Callable[[str], None] | None, weights: str | None, expected: bool
) -> None:
    assert called_back(say, weights) is expected
