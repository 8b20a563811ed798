"""Registration: the pose of a CT in the world of its X-rays.

`ascent` is the algorithm, `similarity` what it climbs, `truncation` which rays count where the CT was
cut off; `cases` makes its input from files or SIMULATED X-rays, `outcome` tells what was found.
`jxrecon register` runs it.
"""

from jxrecon.registration.ascent import (
    MOST_STARTS,
    Registration,
    Scale,
    Settings,
    cameras_at_rest,
    coarser_volume,
    random_poses,
    register,
    settings_of,
)
