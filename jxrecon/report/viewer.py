"""What is left of a reconstruction: its files, a picture, and a page with a viewer that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jxrecon.files import write_file
from jxrecon.inference.patient import title
from jxrecon.inference.volumes import Volume
from jxrecon.io.nifti import is_volume
from jxrecon.report.drawing import render
from jxrecon.report.preview import preview_png

WINDOWS = (("all", -1000, 1500), ("soft tissue", -160, 240), ("bone", 0, 1500), ("air", -1000, 0))
"""Name, lowest and highest HU of the viewer's buttons."""

_LIBRARY = Path(__file__).parent / "vendor" / "niivue.umd.js"


def write_reconstruction(
    out: Path, name: str, volume: Volume, warnings: Sequence[str] = (), **more: Any
) -> list[Path]:
    """Writes the files of `Volume.write`, NAME_preview.png and NAME.html.

    Args:
        out: folder.
        name: of the files.
        volume: what was found.
        warnings: lines to be read before the picture is, beside those of the volume itself.
        more: for NAME_facts.json.

    Returns:
        their paths: first the volume's, last the page's.
    """
    paths = volume.write(out, name, **more)
    preview, page = out / f"{name}_preview.png", out / f"{name}.html"
    picture = preview_png(volume)
    write_file(preview, picture)
    files = [path for path in paths if is_volume(path)]
    write_viewer(page, volume, files, picture, [*warnings, *volume.unexplained])
    return [*paths, preview, page]


def told(volume: Volume) -> list[str]:
    """How well the volume explains each X-ray, a line each, for printing."""
    shows = " (the X-ray shows all of the patient, the volume its field)" if volume.beyond else ""
    return [
        f"re-projection error |Ax - y| / |y| {error:.4f}  {view.origin}{shows}"
        for view, error in zip(volume.views, volume.errors)
    ]


def write_viewer(
    path: Path, volume: Volume, files: Sequence[Path], picture: bytes, warnings: Sequence[str]
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        volume: what was found.
        files: of the volume, NIfTI, and of its standard deviation, where there is one.
        picture: of `preview_png`.
        warnings: lines to be read before the picture is.
    """
    low, high = WINDOWS[0][1:]
    volumes: list[dict[str, Any]] = [
        {**_file(files[0]), "colormap": "gray", "cal_min": low, "cal_max": high}
    ]
    if len(files) > 1:
        volumes.append({**_file(files[1]), "colormap": "warm", "opacity": 0, "cal_min": 0})
    render(
        "viewer.html.jinja",
        path,
        title=f"CT from {len(volume.views)} X-ray" + "s" * (len(volume.views) > 1),
        what=title(volume.run, volume.step),
        synthetic=volume.run.synthetic,
        warnings=warnings,
        windows=WINDOWS,
        deviation=len(files) > 1,
        volumes=volumes,
        preview=f"data:image/png;base64,{_base64(picture)}",
        views=[(view.origin, error) for view, error in zip(volume.views, volume.errors)],
        facts=volume.facts,
        library=_LIBRARY.read_text().replace("</script", r"<\/script"),
    )


def _file(path: Path) -> dict[str, str]:
    return {"name": path.name, "base64": _base64(path.read_bytes())}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
