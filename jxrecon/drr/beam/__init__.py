"""The beam: HU to attenuation, and line integrals to what a detector shows of them.

`radiograph(line_integrals, key, Settings(...))` is all of it in order; the files hold its parts.

Attenuation mu is in 1/mm, line integrals tau = int mu dl are dimensionless, transmission is I / I0,
lengths are mm, energies keV, doses photons per pixel. Pure functions; constants name their source.
"""

from jxrecon.drr.beam.attenuation import (
    LEAST_TRANSMISSION,
    absorption,
    hu_to_mu,
    hu_to_mu_bilinear,
    line_integrals_of,
    mu_to_hu,
    transmission,
)
from jxrecon.drr.beam.chain import Settings, radiograph
from jxrecon.drr.beam.detector import Response, blurred, gaussian_noise, poisson_noise, scattered
from jxrecon.drr.beam.materials import (
    ALUMINIUM,
    CORTICAL_BONE,
    MATERIALS,
    REFERENCE_KEV,
    WATER,
    hu_to_mu_at,
    linear_attenuation,
    mass_attenuation,
    split,
)
from jxrecon.drr.beam.spectrum import (
    LEAST_KVP,
    MOST_KVP,
    Spectrum,
    energy_integrating,
    kramers,
    monochromatic,
    polychromatic_transmission,
)
