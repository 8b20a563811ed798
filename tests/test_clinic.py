"""What a clinic hands over gives what the same in NIfTI gives, in every command."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import numpy as np
import pydicom
import pytest
from pydicom.uid import ComputedRadiographyImageStorage, XRayAngiographicImageStorage
from written_dicom import write_ct_folder, write_dicom

from jxrecon import project
from jxrecon.data.scenes import scenes_of
from jxrecon.data.volumes import load
from jxrecon.flags import xrays_of
from jxrecon.io.dicom import find_series, read_series
from jxrecon.io.nifti import read_volume, write_volume
from jxrecon.io.radiographs import read
from jxrecon.registration.cases import from_files
from jxrecon.runs.config import find
from jxrecon.types import InputError

AFFINE = np.diag([12.0, 12.0, 10.0, 1.0])


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Two bodies, each as NIfTI and as DICOM slices, as --data wants them."""
    root = tmp_path_factory.mktemp("clinic")
    x, y, z = np.indices((24, 20, 30))
    for n, split in enumerate(("train", "validation")):
        inside = ((x - 11) / 9) ** 2 + ((y - 9 - n) / 7) ** 2 < 1
        hu = np.where(inside, 30 + 5 * (x % 3) - 3 * (z % 4), -1000)
        hu[9:13, 5:8, 4:26] = 700
        for kind in ("nifti", "dicom"):
            (root / kind / split).mkdir(parents=True)
        write_volume(root / "nifti" / split / "a_ct.nii.gz", hu, AFFINE)
        hu, affine = read_volume(root / "nifti" / split / "a_ct.nii.gz")
        write_ct_folder(root / "dicom" / split / "a", hu, affine, f"P{n}")
    return root


def test_a_dicom_folder_is_its_nifti_in_data_and_scenes(clinic):
    experiment = find("x2ct_hn", "tiny")
    nifti, dicom = (load(experiment, clinic / kind) for kind in ("nifti", "dicom"))
    for split in ("train", "validation"):
        one, other = getattr(nifti, split), getattr(dicom, split)
        assert one.names == other.names == ("a",)
        np.testing.assert_array_equal(one.hu, other.hu)
        np.testing.assert_array_equal(one.body, other.body)
        np.testing.assert_array_equal(one.affines, other.affines)
        grid = experiment.field.grid
        scenes = [scenes_of(cases, clinic / kind / split, grid)
                  for cases, kind in ((one, "nifti"), (other, "dicom"))]  # fmt: skip
        np.testing.assert_array_equal(scenes[0].hu, scenes[1].hu)
        np.testing.assert_array_equal(scenes[0].affines, scenes[1].affines)


@pytest.fixture(scope="module")
def projected(clinic, run_command):
    """X-rays of the body by `project`, from NIfTI and from DICOM."""
    out = clinic / "xrays"
    flags = ["--pixels", 32, "--pixel-mm", 14, "--format", "npz"]
    for kind, path in (("nifti", "a_ct.nii.gz"), ("dicom", "a")):
        ct = clinic / kind / "train" / path
        assert run_command(project, ct, *flags, "--out", out / kind) == 0
    return out


def test_a_dicom_folder_is_its_nifti_in_project_and_register(clinic, projected):
    names = {"nifti": "a_ct", "dicom": "a"}
    for view in ("frontal", "lateral"):
        one, other = (read(projected / k / f"{n}_{view}.npz") for k, n in names.items())
        np.testing.assert_array_equal(one.line_integrals, other.line_integrals)
        np.testing.assert_array_equal(one.isocentre_mm, other.isocentre_mm)
    one, other = (
        from_files(clinic / kind / "train" / path, [])
        for kind, path in (("nifti", "a_ct.nii.gz"), ("dicom", "a"))
    )
    np.testing.assert_array_equal(one.mu, other.mu)
    np.testing.assert_array_equal(one.grid.affine, other.grid.affine)


ANGLES = {"frontal": (180, 0), "lateral": (-90, 0)}
"""Of the positioner, which carries the detector: the source of a frontal view is in front."""


def _radiograph(path, xray, kind, view, isocentre):
    """A file of this kind that shows the X-ray, in 16 bits."""
    counts = np.rint(np.exp(-xray.line_integrals.astype(np.float64)) * 65535)
    tags = {"Modality": kind, "PatientOrientation": ["L" if view == "frontal" else "P", "F"]}
    if kind == "XA":
        primary, secondary = ANGLES[view]
        tags |= {"SOPClassUID": XRayAngiographicImageStorage}
        tags |= {"PositionerPrimaryAngle": primary, "PositionerSecondaryAngle": secondary}
    else:
        tags |= {"SOPClassUID": ComputedRadiographyImageStorage}
        tags |= {"ViewPosition": "AP" if view == "frontal" else "RL"}
    if kind == "CR":
        counts, tags["PhotometricInterpretation"] = 65535 - counts, "MONOCHROME1"
    return write_dicom(
        path,
        counts,
        DistanceSourceToDetector=1500,
        DistanceSourceToPatient=1000,
        ImagerPixelSpacing=[14, 14],
        PixelIntensityRelationship="LIN",
        **tags,
    )


def test_radiographs_reconstruct_to_the_volume_of_the_nifti_xrays(projected, tmp_path, run_command):
    flags = ["--method", "sirt", "--grid", "12,12,12", "--spacing-mm", 24]
    run = partial(run_command, import_module("jxrecon.reconstruct"), *flags)
    views = ("frontal", "lateral")
    xrays = {view: read(projected / "nifti" / f"a_ct_{view}.npz") for view in views}
    files = [projected / "nifti" / f"a_ct_{view}.npz" for view in views]
    assert run("--xray", *files, "--out", tmp_path / "nifti") == 0
    expected, affine = read_volume(tmp_path / "nifti" / "a_ct_recon.nii.gz")
    isocentre = xrays["frontal"].isocentre_mm
    told = ["--i0", 65535, "--isocentre", ",".join(f"{x:.6f}" for x in isocentre)]
    for kind in ("CR", "DX", "XA"):
        files = [
            _radiograph(tmp_path / f"{kind}_{view}", xrays[view], kind, view, isocentre)
            for view in views
        ]
        assert run("--xray", *files, *told, "--out", tmp_path / kind) == 0
        found, place = read_volume(tmp_path / kind / f"{kind}_recon.nii.gz")
        np.testing.assert_allclose(place, affine, atol=1e-3)
        # both are rounded to whole HU
        assert np.abs(found.astype(float) - expected).mean() < 0.5, kind
        assert np.abs(found.astype(float) - expected).max() <= 2, kind


def test_the_phases_of_a_4d_ct_are_read_in_any_order_and_a_lost_slice_named(real_data, tmp_path):
    folder = real_data / "ct4d_lung_dicom"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    shuffled = np.random.default_rng(0).permutation(len(files))
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, k in enumerate(shuffled):
        (flat / f"{n:04d}").symlink_to(files[k])
    series = find_series(flat.iterdir())
    assert [len(one.files) for one in series] == [47] * 10
    phases = sorted(series, key=lambda one: pydicom.dcmread(
        one.files[0], specific_tags=["SeriesDescription"]).SeriesDescription)  # fmt: skip
    one = phases[0]
    hu, _ = read_series(one.files)
    expected, _ = read_series([path for path in files if path.parent.name == "00"])
    np.testing.assert_array_equal(hu, expected)
    by_height = sorted(one.files, key=lambda path: float(
        pydicom.dcmread(path, specific_tags=["ImagePositionPatient"]).ImagePositionPatient[2]
    ))  # fmt: skip
    with pytest.raises(InputError, match=r"1 slice\(s\) missing") as caught:
        read_series([path for path in one.files if path != by_height[20]])
    assert str(by_height[21]) in str(caught.value)
    twice = tmp_path / "twice"
    twice.write_bytes(by_height[5].read_bytes())
    with pytest.raises(InputError, match=rf"{twice}|{by_height[5]}"):
        read_series([*one.files, twice])
    cut = tmp_path / "cut"
    cut.write_bytes(by_height[5].read_bytes()[:-3000])
    with pytest.raises(InputError, match=str(cut)):
        read_series([cut if path == by_height[5] else path for path in one.files])


def test_a_flag_holds_for_all_xrays_or_for_each():
    words = ["--method", "sirt", "--out", "o", "--xray", "a.png", "b.png", "--view", "pa", "ll"]
    words += ["--sad", "900", "--pixel-mm", "2", "3,4", "--patient-orientation", "L,F", "P,F"]
    parse = import_module("jxrecon.reconstruct").parser().parse_args
    (_, one), (_, other) = xrays_of(parse(words))
    assert (one.view, one.source_axis_mm, one.pixel_mm) == ("pa", 900, (2, 2))
    assert (other.view, other.source_axis_mm, other.pixel_mm) == ("ll", 900, (3, 4))
    assert (one.patient_orientation, other.patient_orientation) == (("L", "F"), ("P", "F"))
    with pytest.raises(InputError, match="3 --i0 for 2 --xray"):
        xrays_of(parse([*words, "--i0", "1", "2", "3"]))
