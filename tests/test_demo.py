"""`jxrecon demo`: two X-rays in, a CT out, by the weights that ship."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jxrecon.__main__ import command
from jxrecon.io.nifti import read_volume


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 2])
def test_the_demo_writes_a_volume_its_deviation_and_a_page(
    views: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["demo", "--out", str(tmp_path), "--views", str(views)]) == 0
    told = capsys.readouterr().out
    hu, _ = read_volume(tmp_path / "ct.nii.gz")
    deviation, _ = read_volume(tmp_path / "ct_deviation.nii.gz")
    assert hu.shape == deviation.shape == (80, 96, 112)
    psnr = float(told.split("painted: ")[1].split(" dB")[0])
    assert psnr > (22.0, 20.0)[views == 1]
    assert 20 < np.mean(deviation) < 500
    assert json.loads((tmp_path / "ct_facts.json").read_text())["subject"] == 0
    page = (tmp_path / "ct.html").read_text()
    assert "SYNTHETIC subject 0" in page
    assert "niivue" in page
    assert 'src="http' not in page
    if browser := shutil.which("chromium") or shutil.which("google-chrome"):
        assert 'data-viewer="ready"' in _opened(browser, tmp_path / "ct.html")


def _opened(browser: str, page: Path) -> str:
    """The page once its scripts have run, as HTML, in Chromium without a screen or a graphics card."""
    flags = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader")
    flags += ("--enable-unsafe-swiftshader", "--virtual-time-budget=20000", "--dump-dom")
    asked = [browser, *flags, page.resolve().as_uri()]
    return subprocess.run(asked, capture_output=True, text=True, timeout=300, check=True).stdout
