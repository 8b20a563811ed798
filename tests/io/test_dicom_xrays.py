"""DICOM radiographs give the camera and the line integrals they were written from, or say what is missing."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import DigitalXRayImageStorageForProcessing
from written_dicom import write_dicom

from jxrecon.geometry import camera_at, vectors
from jxrecon.io.radiographs import Given, read
from jxrecon.io.xray_views import as_displayed
from jxrecon.types import InputError

SHAPE, PITCH = (24, 20), (2.0, 3.0)


def lines():
    """Line integrals of a body in air, asymmetric."""
    row, column = np.mgrid[:24, :20]
    inside = ((row - 13) / 8) ** 2 + ((column - 8) / 6) ** 2
    return np.where(inside < 1, 4.0 * np.sqrt(np.maximum(1 - inside, 0)) + 0.05 * (row > 12), 0.0)


def write(path, stored=None, bits=16, **tags):
    stored = np.rint(np.exp(-lines()) * 65535) if stored is None else stored
    usual = {
        "SOPClassUID": DigitalXRayImageStorageForProcessing,
        "SOPInstanceUID": "1.2.3",
        "Modality": "DX",
        "PixelIntensityRelationship": "LIN",
        "DistanceSourceToDetector": 1500,
        "DistanceSourceToPatient": 1000,
        "ImagerPixelSpacing": [*PITCH],
        "ViewPosition": "AP",
        "PatientOrientation": ["L", "F"],
        "BitsStored": bits,
        "HighBit": bits - 1,
    }
    return write_dicom(path, stored, **usual | tags)


I0 = Given(i0=65535.0)
LOG = Given(scale=4.0 / 60000, offset=0.0)


def stored_log(turned=False):
    levels = np.rint(lines() * 15000)
    return 65535 - levels if turned else levels


@pytest.mark.parametrize(
    ("given", "stored", "tags"),
    [
        (I0, None, {}),
        (I0, None, {"PhotometricInterpretation": "MONOCHROME1", "PixelIntensityRelationshipSign": 1}),
        (I0, "turned", {"PhotometricInterpretation": "MONOCHROME1"}),
        (I0, "turned", {"PhotometricInterpretation": "MONOCHROME1", "PixelIntensityRelationshipSign": -1}),
        (I0, "turned", {"PhotometricInterpretation": "MONOCHROME1", "PixelIntensityRelationshipSign": 1}),
        (I0, "turned", {"PixelIntensityRelationshipSign": -1}),
        (I0._replace(inverted=True), "turned", {}),
        (I0, None, {"PixelIntensityRelationship": None, "PresentationIntentType": "FOR PROCESSING"}),
        (I0, None, {"RescaleSlope": 1, "RescaleIntercept": 0, "WindowCenter": 100, "WindowWidth": 50}),
        (LOG, "log", {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}),
        (LOG, "log turned", {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": 1}),
        (LOG, "log turned", {"PixelIntensityRelationship": "LOG",
                             "PhotometricInterpretation": "MONOCHROME1"}),
        (LOG, "log", {"PixelIntensityRelationship": "DISP"}),
        (LOG, "log turned", {"PixelIntensityRelationship": "DISP", "PhotometricInterpretation": "MONOCHROME1",
                             "PresentationLUTShape": "INVERSE"}),
        (LOG, "log turned", {"PixelIntensityRelationship": "DISP", "PresentationLUTShape": "INVERSE"}),
        (LOG, "log turned", {"PixelIntensityRelationship": "DISP", "PhotometricInterpretation": "MONOCHROME1",
                             "WindowCenter": 32768, "WindowWidth": 65536}),
    ],
)  # fmt: skip
def test_pixels_become_the_line_integrals_they_were_written_from(given, stored, tags, tmp_path):
    counts = np.rint(np.exp(-lines()) * 65535)
    kinds = {"turned": 65535 - counts, "log": stored_log(), "log turned": stored_log(True)}
    found = read(write(tmp_path / "a.dcm", kinds.get(stored), **tags), given)
    np.testing.assert_allclose(found.line_integrals, lines(), atol=2e-3)


def test_a_voi_table_is_applied_before_dark_and_bright_are_exchanged(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor = [256, 0, 16]
    item.add_new("LUTData", "OW", (np.arange(256) ** 2 // 2).astype("<u2").tobytes())
    levels = np.rint(lines() * 60)
    tags = {"PixelIntensityRelationship": "DISP", "PhotometricInterpretation": "MONOCHROME1"}
    path = write(tmp_path / "a.dcm", 255 - levels, 8, VOILUTSequence=[item], **tags)
    found = read(path, Given(scale=1e-4, offset=0.0))
    expected = 1e-4 * (65535 - (255 - levels) ** 2 // 2)
    np.testing.assert_allclose(found.line_integrals, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("angles", "orientation", "view", "turned"),
    [
        ((0, 0), ["L", "F"], "pa", ""),
        ((180, 0), ["L", "F"], "ap", ""),
        ((-90, 0), ["P", "F"], "rl", ""),
        ((90, 0), ["P", "F"], "ll", ""),
        ((90, 0), ["A", "F"], "ll", "columns"),
        ((0, 0), ["R", "F"], "pa", "columns"),
        ((0, 0), ["L", "H"], "pa", "rows"),
        ((30, -20), ["LP", "FA"], "210,20", "columns"),
    ],
)
def test_the_camera_is_where_the_positioner_and_the_orientation_say(
    angles, orientation, view, turned, tmp_path
):
    tags = {
        "ViewPosition": None,
        "PositionerPrimaryAngle": angles[0],
        "PositionerSecondaryAngle": angles[1],
    }
    found = read(write(tmp_path / "a", PatientOrientation=orientation, **tags), I0).camera
    named = {"pa": (180, 0), "ap": (0, 0), "rl": (90, 0), "ll": (270, 0)}.get(view)
    angle, elevation = named or map(float, view.split(","))
    wanted = as_displayed(camera_at(angle, elevation, shape=SHAPE, pixel_mm=PITCH), view)
    wanted = wanted.replace(u=-wanted.u) if turned == "columns" else wanted
    wanted = wanted.replace(v=-wanted.v) if turned == "rows" else wanted
    for a, b in zip(vectors(found), vectors(wanted)):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_picture_on_its_side_keeps_its_pitches(tmp_path):
    found = read(write(tmp_path / "a.dcm", PatientOrientation=["F", "R"]), I0).camera
    _, _, u, v = vectors(found)
    np.testing.assert_allclose(u, (0, 0, -PITCH[1]))
    np.testing.assert_allclose(v, (PITCH[0], 0, 0))


@pytest.mark.parametrize(
    ("tags", "given", "reason"),
    [
        ({"DistanceSourceToDetector": 0}, I0, "--sid"),
        ({"DistanceSourceToPatient": None}, I0, "--sad"),
        ({"ImagerPixelSpacing": [0, 0]}, I0, "--pixel-mm"),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [1, 1]}, I0, "--pixel-mm"),
        ({"ViewPosition": None}, I0, "--view"),
        ({"ViewPosition": "LL", "PatientOrientation": None}, I0, "--view"),
        ({"PositionerPrimaryAngle": 0, "PatientOrientation": None}, I0, "--patient-orientation"),
        ({"PatientOrientation": ["A", "F"]}, I0, "does not lie in the picture"),
        ({"PatientOrientation": ["L", "X"]}, I0, "expected letters"),
        ({"PositionerPrimaryAngle": 999}, I0, "positioner angles"),
        ({}, Given(), "--i0"),
        ({"PixelIntensityRelationship": None}, I0, "--intensity"),
        ({"PixelIntensityRelationship": "LOG"}, Given(), "--scale"),
        ({"Modality": "CT"}, I0, "Modality is CT"),
    ],
)
def test_what_is_missing_is_demanded_by_its_flag(tags, given, reason, tmp_path):
    path = write(tmp_path / "a.dcm", **tags)
    with pytest.raises(InputError, match=reason) as caught:
        read(path, given)
    assert str(path) in str(caught.value)


def test_every_value_is_printed_with_its_tag(tmp_path):
    found = read(write(tmp_path / "a.dcm"), I0)
    origins = {name: (text, where) for name, text, where in found.resolved}
    assert origins["source to detector"] == ("1500.0 mm", "DistanceSourceToDetector")
    assert origins["source to axis"] == ("1000.0 mm", "DistanceSourceToPatient")
    assert origins["pixel pitch"] == ("2 x 3 mm", "ImagerPixelSpacing")
    assert origins["view"][1] == "ViewPosition"
    assert origins["rows and columns"] == ("run to L\\F", "PatientOrientation")
    assert origins["intensity"] == ("raw", "PixelIntensityRelationship LIN")
    assert origins["i0"][1] == "--i0"


def test_a_frame_is_chosen(tmp_path):
    counts = np.rint(np.exp(-lines()) * 65535)
    path = write(
        tmp_path / "run.dcm", np.stack([0 * counts + 7, counts]), NumberOfFrames=2, Modality="XA"
    )
    for frame in (0, 3):
        with pytest.raises(InputError, match=f"--frame {frame}, expected --frame 1 to 2"):
            read(path, I0._replace(frame=frame))
    with pytest.raises(InputError, match=r"2 frame\(s\), expected --frame 1 to 2"):
        read(path, I0)
    found = read(path, I0._replace(frame=2))
    np.testing.assert_allclose(found.line_integrals, lines(), atol=2e-3)
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x002 ", b"IS\x02\x002A"))
    with pytest.raises(InputError, match="NumberOfFrames is '2A'"):
        read(path, I0)


def test_the_real_radiograph_is_read_once_its_spacing_is_given(capsys):
    pytest.importorskip("data_store", reason="pip install pydicom-data")
    path = pydicom.data.get_testdata_file("RG1_UNCR.dcm", download=False)
    with pytest.raises(InputError, match=r"--sad, --pixel-mm"):
        read(path)
    given = Given(pixel_mm=(0.2, 0.2), source_axis_mm=1750.0, intensity="display")
    found = read(path, given)
    source, _, u, v = vectors(found.camera)
    assert source[1] == -1750  # PA: behind the patient
    assert (u[0], v[2]) == pytest.approx((-0.2, -0.2))
    assert found.line_integrals.shape == (1955, 1841)
    middle, frame = found.line_integrals[900:1000, 850:950], found.line_integrals[:, :20]
    assert middle.mean() > frame.mean()  # bone is bright
    assert "guessed" in capsys.readouterr().err
