"""Writes the pictures of a run's report.html as PNG files: python tools/report_pictures.py REPORT OUT."""

from __future__ import annotations

import argparse
import base64
import re
from pathlib import Path

_PICTURE = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


def main() -> None:
    """Numbers the pictures in the order in which the report shows them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="report.html of a run")
    parser.add_argument("out", type=Path, help="folder for picture_00.png and so on")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(_PICTURE.findall(args.report.read_text())):
        path = args.out / f"picture_{number:02d}.png"
        path.write_bytes(base64.b64decode(data))
        print(path)


if __name__ == "__main__":
    main()
