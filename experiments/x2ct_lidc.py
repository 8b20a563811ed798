"""X2CT-GAN on LIDC-IDRI, the paper's own setting: a chest CT from frontal and lateral X-ray.

    jxrecon train --exp x2ct_lidc --size paper --data DIR      # the authors' files, or NIfTI

DIR holds train.txt, test.txt and CASE/ct_xray_data.h5 (916 and 102 cases). Field: a cube of 320 mm on 128
voxels an edge, window -1024 to 1476 HU. Views: cone beam, source-axis 541 mm, source-detector 949 mm, a
detector of 500 x 500 mm. Training of the paper: Adam 2e-4 (0.5, 0.99), batch 4, 100 epochs, the rate falling
to 0 from the fiftieth on. The weights that the authors published are those of epoch 90.

Differs from the paper: X-rays are line integrals of the volumes at hand, lungs included, where the authors'
leave out all that is at or below -800 HU; each is normalised by its maximum in 8 bit as theirs are.

Reported (from memory, no stored source confirms it), PSNR / SSIM in the x2ct-legacy convention:
2DCNN 23.10 / .461, X2CT-CNN one view 23.12 / .587, X2CT-GAN one view 22.30 / .525, X2CT-CNN two views
27.29 / .721, X2CT-GAN two views 26.19 / .656. Re-measured by others under one protocol (917/101 cases):
X2CT-GAN 26.03 / .645. Nothing was measured here.
"""

from __future__ import annotations

from dataclasses import replace

from jxrecon.data import lidc
from jxrecon.experiment import Experiment, Field, Views, Xrays
from jxrecon.runs.config import find

_EPOCH = 229
"""Steps, of 916 cases in batches of 4."""


def get_config(size: str | None = None) -> Experiment:
    """The experiment at a size of x2ct_hn; "paper" is the paper's."""
    base = find("x2ct_hn", size)
    edge = base.field.shape[0]
    schedule, settings = base.schedule, replace(base.settings, normalisation="maximum")
    if base.size == "paper":
        schedule = replace(schedule, steps=100 * _EPOCH, batch_size=4)
        settings = replace(settings, constant_steps=49 * _EPOCH, decay_steps=51 * _EPOCH)
    return replace(
        base,
        name="x2ct_lidc",
        field=Field((edge,) * 3, (lidc.EDGE / edge,) * 3, (-1024.0, 1476.0)),
        views=Views(
            edge,
            detector_mm=lidc.DETECTOR_MM,
            source_axis_mm=lidc.SOURCE_AXIS_MM,
            source_detector_mm=lidc.SOURCE_DETECTOR_MM,
        ),
        schedule=schedule,
        settings=settings,
        xrays=Xrays(of="field", noisy=0.0),  # the files hold no more than the field
        load=lidc.load,
        # All but the mean keep all volumes in memory: with 916 of them, only when asked for.
        rivals={
            name: rival._replace(default=name == "mean volume")
            for name, rival in base.rivals.items()
        },
    )
