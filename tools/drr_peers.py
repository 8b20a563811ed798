"""Other projects' projectors on one scene: each adapter turns our cameras into the peer's own geometry.

| peer | voxel model | forward | volume gradient | pose gradient |
|---|---|---|---|---|
| diffdrr/siddon | constant | yes | autograd | autograd, 4x4 pose matrix |
| diffdrr/trilinear | linear | yes | autograd | autograd, 4x4 pose matrix |
| nanodrr | linear | yes | autograd | autograd, 4x4 camera matrix |
| flashdrr | linear, corners half a voxel out | yes | autograd | autograd, 4x4 view matrix |
| diffct | constant | yes | its adjoint | its geometry gradient |
| rtk | Joseph, C++ | yes | its backprojector | - |
| mbirjax | footprints, circular orbits only | yes | its backprojector | - |

An adapter takes a `Scene` and returns a `Contender`, or None where the peer cannot take the scene. The
packages are imported inside, so that none is needed. Peers that march take two samples a voxel of the
volume's longest axis. The detectors of a scene are perpendicular to their central ray.

That the geometries are the same was seen at 128^3 by --check, as the relative L2 difference from our
Siddon: 1e-6 for the constant voxel, 0.8e-2 to 1.4e-2 for the linear one, the Joseph and the footprints,
3.7e-2 for flashdrr.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

TASKS = ("forward", "volume", "pose")
"""The image; the image and its gradient in the volume; the image and its gradient in the pose."""


class Scene(NamedTuple):
    """What is projected.

    Attributes:
        name: of the size, as given to --sizes.
        mu: attenuation in 1/mm, float32 [x, y, z].
        affine: 4x4, index -> world mm, no rotation.
        cameras: jxrecon's cameras, all of one detector shape.
        weights: cotangent of the images, float32 [views, rows, columns].
    """

    name: str
    mu: np.ndarray
    affine: np.ndarray
    cameras: tuple[Any, ...]
    weights: np.ndarray

    @property
    def spacing_mm(self) -> list[float]:
        """Edge lengths of a voxel."""
        return [float(mm) for mm in np.diag(self.affine)[:3]]

    @property
    def samples(self) -> int:
        """Samples along a ray for the peers that march."""
        return 2 * max(self.mu.shape)


class Contender(NamedTuple):
    """One projector, ready to run.

    Attributes:
        name: `project/method`.
        images: the images as NumPy, [views, rows, columns].
        tasks: name in `TASKS` -> a function that runs it once and returns when all is computed.
    """

    name: str
    images: Callable[[], np.ndarray]
    tasks: dict[str, Callable[[], Any]]


class Frame(NamedTuple):
    """A camera as source, unit axes (columns, rows, central ray), distance and pitches in mm."""

    source: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    distance: float
    pitch_x: float
    pitch_y: float

    def matrix(self, flip_x: int, flip_y: int) -> np.ndarray:
        """Camera -> world, 4x4 float32, with the image axes times +-1."""
        columns = [flip_x * self.x, flip_y * self.y, self.z, self.source]
        return np.vstack([np.stack(columns, 1), [0, 0, 0, 1]]).astype(np.float32)


def frames_of(scene: Scene) -> list[Frame]:
    """The scene's cameras in the terms that the peers are told theirs in."""
    frames = []
    for camera in scene.cameras:
        source, centre, u, v = (
            np.asarray(part, np.float64)
            for part in (camera.source, camera.centre, camera.u, camera.v)
        )
        ray, pitch_x, pitch_y = centre - source, np.linalg.norm(u), np.linalg.norm(v)
        distance = np.linalg.norm(ray)
        frames.append(
            Frame(
                source, u / pitch_x, v / pitch_y, ray / distance,
                float(distance), float(pitch_x), float(pitch_y),
            )
        )  # fmt: skip
    return frames


def _torch_contender(
    name: str, scene: Scene, volume: Any, pose: Any, project: Callable[[], Any]
) -> Contender:
    """Tasks by autograd: `project` reads the leaves and returns [views, rows, columns]."""
    import torch

    leaves = {"volume": volume, "pose": pose}
    weights = torch.from_numpy(scene.weights).to(volume.device)

    def settled(result: Any) -> Any:
        if volume.is_cuda:
            torch.cuda.synchronize()
        return result

    def forward() -> Any:
        with torch.no_grad():
            return settled(project())

    def gradient(leaf: Any) -> Any:
        leaf.requires_grad_(True)
        images = project()
        (slope,) = torch.autograd.grad(images, leaf, weights)
        leaf.requires_grad_(False)
        return settled((images.detach(), slope))

    tasks: dict[str, Callable[[], Any]] = {"forward": forward}
    for task, leaf in leaves.items():
        tasks[task] = lambda leaf=leaf: gradient(leaf)  # type: ignore[misc]
    return Contender(name, lambda: forward().cpu().numpy(), tasks)


def _device() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _diffdrr(scene: Scene, renderer: str) -> Contender:
    import torch
    from diffdrr.drr import DRR
    from diffdrr.pose import RigidTransform
    from torchio import ScalarImage, Subject

    device, frames = _device(), frames_of(scene)
    image = ScalarImage(tensor=torch.from_numpy(scene.mu)[None], affine=scene.affine)
    subject = Subject(volume=image, density=image, mask=None, reorient=torch.eye(4))
    rows, columns = scene.cameras[0].shape
    drr = DRR(
        subject,
        sdd=frames[0].distance,
        height=rows,
        width=columns,
        delx=frames[0].pitch_x,
        dely=frames[0].pitch_y,
        renderer=renderer,
    ).to(device)
    # reverse_x_axis and DiffDRR's upward y: pixel (r, c) lies at (-c delx, -r dely, sdd).
    pose = torch.from_numpy(np.stack([frame.matrix(-1, -1) for frame in frames])).to(device)
    marching = {"n_points": scene.samples} if renderer == "trilinear" else {}

    def project() -> Any:
        return drr(RigidTransform(pose), **marching)[:, 0]

    return _torch_contender(f"diffdrr/{renderer}", scene, drr.density, pose, project)


def diffdrr_siddon(scene: Scene) -> Contender:
    """DiffDRR, exact Siddon."""
    return _diffdrr(scene, "siddon")


def diffdrr_trilinear(scene: Scene) -> Contender:
    """DiffDRR, trilinear ray marching."""
    return _diffdrr(scene, "trilinear")


def nanodrr(scene: Scene) -> Contender:
    """nanodrr with backend "auto": grid_sample in torch on a CPU, Triton on a GPU."""
    import torch
    from nanodrr.camera import make_k_inv
    from nanodrr.data import Subject
    from nanodrr.drr import render
    from torchio import ScalarImage

    device, frames = _device(), frames_of(scene)
    image = ScalarImage(tensor=torch.from_numpy(scene.mu)[None], affine=scene.affine)
    subject = Subject.from_images(image, convert_to_mu=False).to(device)
    (rows, columns), first = scene.cameras[0].shape, frames[0]
    inverse = make_k_inv(first.distance, first.pitch_x, first.pitch_y, 0.0, 0.0, rows, columns)
    inverse = inverse.float().to(device).expand(len(frames), 3, 3)
    distance = torch.full((len(frames),), first.distance, device=device)
    pose = torch.from_numpy(np.stack([frame.matrix(1, 1) for frame in frames])).to(device)

    def project() -> Any:
        return render(subject, inverse, pose, distance, rows, columns, scene.samples)[:, 0]

    return _torch_contender("nanodrr", scene, subject._image_hu, pose, project)


def flashdrr(scene: Scene) -> Contender:
    """FlashDRR's raycaster: torch on a CPU, Triton on a GPU. It takes mu in 1/cm."""
    import torch
    from flashdrr.rendering import VolumeRaycaster

    device, frames = _device(), frames_of(scene)
    (rows, columns), first = scene.cameras[0].shape, frames[0]
    caster = VolumeRaycaster(ray_samples=scene.samples, resolution=(columns, rows), return_tau=True)
    # Its field of view knows square pixels only: give the rays themselves.
    c = (torch.arange(columns) - (columns - 1) / 2) * first.pitch_x
    r = (torch.arange(rows) - (rows - 1) / 2) * first.pitch_y
    down, right = torch.meshgrid(r, c, indexing="ij")
    rays = torch.stack([right, -down, torch.full_like(right, first.distance)], -1)
    caster.dirs_cam = torch.nn.functional.normalize(rays, dim=-1)
    caster = caster.to(device).eval()
    volume = torch.from_numpy(10 * scene.mu)[None, None].to(device)
    to_index = torch.from_numpy(np.linalg.inv(scene.affine)).float().to(device)
    pose = torch.from_numpy(np.stack([frame.matrix(1, -1) for frame in frames])).to(device)

    def project() -> Any:
        return caster(volume, pose, to_index, triton=volume.is_cuda)[:, 0]

    return _torch_contender("flashdrr", scene, volume, pose, project)


def diffct(scene: Scene) -> Contender:
    """diffct: its portable torch backend on a CPU, its CUDA kernels on a GPU."""
    import torch
    from diffct import Projector

    device, frames = _device(), frames_of(scene)
    rows, columns = scene.cameras[0].shape
    centres = [frame.source + frame.distance * frame.z for frame in frames]
    middle = scene.affine[:3, :3] @ (np.array(scene.mu.shape) - 1) / 2 + scene.affine[:3, 3]
    vectors = [
        [frame.source - middle for frame in frames],
        [centre - middle for centre in centres],
        [frame.x for frame in frames],
        [frame.y for frame in frames],
    ]
    pose = torch.tensor(np.array(vectors), dtype=torch.float32, device=device)
    projector = Projector(
        tuple(pose.clone()),
        scene.mu.T.shape,
        (columns, rows),
        detector_spacing=(frames[0].pitch_x, frames[0].pitch_y),
        voxel_spacing=tuple(scene.spacing_mm[::-1]),
    )
    volume = torch.from_numpy(np.ascontiguousarray(scene.mu.T)).to(device)

    def project() -> Any:
        return projector.project(volume, trajectory=tuple(pose.unbind())).mT

    return _torch_contender("diffct", scene, volume, pose, project)


class RtkScene:
    """A scene in RTK's terms: its geometry, and volumes and stacks of images as ITK has them."""

    def __init__(self, scene: Scene) -> None:
        from itk import RTK, D, Point, Vector

        self.scene, self.frames = scene, frames_of(scene)
        self.geometry = RTK.ThreeDCircularProjectionGeometry.New()
        for frame in self.frames:
            centre = frame.source + frame.distance * frame.z
            points = (Point[D, 3]([float(x) for x in at]) for at in (frame.source, centre))
            axes = (Vector[D, 3]([float(x) for x in along]) for along in (frame.x, frame.y))
            if not self.geometry.AddProjection(*points, *axes):
                raise RuntimeError("RTK refused the camera")

    def volume(self, values: np.ndarray) -> Any:
        """[x, y, z] -> an ITK image."""
        import itk

        image = itk.image_from_array(np.ascontiguousarray(values.T))
        image.SetSpacing(self.scene.spacing_mm)
        image.SetOrigin([float(x) for x in self.scene.affine[:3, 3]])
        return image

    def stack(self, values: np.ndarray) -> Any:
        """[views, rows, columns] -> an ITK image."""
        import itk

        image, (rows, columns) = itk.image_from_array(values), self.scene.cameras[0].shape
        x, y = self.frames[0].pitch_x, self.frames[0].pitch_y
        image.SetSpacing([x, y, 1.0])
        image.SetOrigin([-(columns - 1) / 2 * x, -(rows - 1) / 2 * y, 0.0])
        return image


def rtk(scene: Scene) -> Contender:
    """RTK's C++ Joseph projector and its matched backprojector, on one CPU thread."""
    import itk
    from itk import RTK

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    theirs, image = RtkScene(scene), itk.Image[itk.F, 3]

    def operator(kind: Any, onto: Any, of: Any) -> Callable[[], Any]:
        step = kind[image, image].New()
        step.InPlaceOff()
        step.SetInput(0, onto)
        step.SetInput(1, of)
        step.SetGeometry(theirs.geometry)

        def run() -> Any:
            step.Modified()
            step.Update()
            return step.GetOutput()

        return run

    forward = operator(
        RTK.JosephForwardProjectionImageFilter,
        theirs.stack(np.zeros_like(scene.weights)),
        theirs.volume(scene.mu),
    )
    back = operator(
        RTK.JosephBackProjectionImageFilter,
        theirs.volume(np.zeros_like(scene.mu)),
        theirs.stack(scene.weights),
    )
    tasks = {"forward": forward, "volume": lambda: (forward(), back())}
    return Contender("rtk", lambda: itk.array_from_image(forward()), tasks)


def mbirjax(scene: Scene) -> Contender | None:
    """MBIRJAX's cone beam on a circular orbit in the plane z = 0 about the origin; no tilted views."""
    frames, (rows, columns) = frames_of(scene), scene.cameras[0].shape
    upright = all(abs(frame.source[2]) + abs(frame.z[2]) < 1e-6 for frame in frames)
    middle = scene.affine[:3, :3] @ (np.array(scene.mu.shape) - 1) / 2 + scene.affine[:3, 3]
    if not upright or np.abs(middle).max() > 1e-4:
        return None
    from mbirjax import ConeBeamModel

    # Its source stands at +y of a frame turned by -angle; its rows run up, its channels to +x.
    angles = np.array([np.arctan2(frame.source[0], frame.source[1]) for frame in frames])
    first, (x_mm, y_mm, z_mm) = frames[0], scene.spacing_mm
    model = ConeBeamModel(
        (len(frames), rows, columns), angles, first.distance, float(np.linalg.norm(first.source))
    )
    model.set_params(
        no_warning=True,
        verbose=0,
        delta_det_channel=first.pitch_x,
        delta_det_row=first.pitch_y,
        delta_voxel=x_mm,
        voxel_row_aspect=y_mm / x_mm,
        voxel_slice_aspect=z_mm / x_mm,
        recon_shape=(scene.mu.shape[1], scene.mu.shape[0], scene.mu.shape[2]),
    )
    volume = np.ascontiguousarray(scene.mu.transpose(1, 0, 2))
    weights = np.ascontiguousarray(scene.weights[:, ::-1, ::-1])

    def forward() -> Any:
        return np.asarray(model.forward_project(volume))

    def with_adjoint() -> Any:
        return forward(), np.asarray(model.back_project(weights))

    return Contender(
        "mbirjax",
        lambda: forward()[:, ::-1, ::-1],
        {"forward": forward, "volume": with_adjoint},
    )


PEERS: dict[str, tuple[str, Callable[[Scene], Contender | None]]] = {
    "diffdrr/siddon": ("diffdrr", diffdrr_siddon),
    "diffdrr/trilinear": ("diffdrr", diffdrr_trilinear),
    "nanodrr": ("nanodrr", nanodrr),
    "flashdrr": ("flashdrr", flashdrr),
    "diffct": ("diffct", diffct),
    "rtk": ("itk.RTK", rtk),
    "mbirjax": ("mbirjax", mbirjax),
}
"""Name -> (module that must be importable, adapter)."""


def installed(name: str) -> bool:
    """Whether the peer's module can be found."""
    module = PEERS[name][0]
    if "." in module:  # ITK loads its modules lazily: they are no packages
        parent, _, child = module.partition(".")
        if find_spec(parent) is None:
            return False
        return hasattr(__import__(parent), child)
    return find_spec(module) is not None
