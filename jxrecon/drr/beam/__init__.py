"""The beam: HU to attenuation, and line integrals to what a detector shows of them.

| file | holds |
|---|---|
| attenuation | HU and mu at one energy, Beer-Lambert, log conversion |
| materials | NIST tables; HU as parts of water and bone |
| spectrum | tube spectrum, polychromatic transmission |
| detector | scatter, blur, noise, response |
| chain | all of them in order: `radiograph(line_integrals, key, Settings(...))` |

Attenuation mu is in 1/mm, line integrals tau = int mu dl are dimensionless, transmission is I / I0,
lengths are mm, energies keV, doses photons per pixel. Pure functions; constants name their source.
"""

from jxrecon.drr.beam.attenuation import (
    BILINEAR_BONE_HU,
    BILINEAR_BONE_PER_MM,
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
    Material,
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
