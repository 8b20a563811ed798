"""The projector: X-ray line integrals of a volume, differentiable in the volume and in the pose.

`line_integrals` is the operator for one view, `project` for many, `project_sharded` over devices;
`choose` and `describe` tell what "auto" takes, `plan` fixes it for cameras that stay near one; `beam`
turns HU into attenuation and line integrals into what a detector reads.

| method | voxel | cameras | volume gradient | pose gradient |
|---|---|---|---|---|
| siddon | constant in its box: exact | any | yes | wrong: boundaries do not move it |
| joseph | linear within slices | any, traced too | yes | yes |
| aligned | the same | known, detector along the index axes | gathers only | no |
| shear_warp | the same, one warp | any that looks through the volume | gathers and a warp | yes |

"auto" is the fastest that fits; for a traced camera the shear-warp, by a branch at run time (`any_pose`).

Interpolating methods differ from exact ones by about 1e-2 (relative L2): another model of a voxel.
An exact Siddon's image changes with the pose through the lengths in voxels only, so its derivative
is not that of the anatomy: against a closed-form phantom its relative error is 0.32 with a wrong
sign, that of the shear-warp 0.08. For poses use anything but Siddon.
"""

from jxrecon.drr.beam import absorption, hu_to_mu, line_integrals_of, mu_to_hu, transmission
from jxrecon.drr.many_views import project, project_sharded, stacked
from jxrecon.drr.projection import EXTENTS, METHODS, choose, describe, line_integrals, plan
from jxrecon.drr.shear_warp import Plan
