"""The simulated camera as an ophyd device: images are files, named by their documents."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from event_model import compose_resource
from ophyd import Component, Device, DeviceStatus, EpicsSignal, EpicsSignalRO, Kind, Signal

from bluesky_plugins.recording import CAMERA_SPEC

__all__ = ["Camera"]

DATASET = "/entry/data"
SHAPE = (48, 64)


class Camera(Device):  # type: ignore[misc]
    """One image at each trigger, or `fly_frames` images in one flight.

    :param root: folder below which the camera writes; the `root` of its `resource` documents.
    """

    acquire = Component(EpicsSignal, "Acquire", kind=Kind.omitted)
    num_images = Component(EpicsSignal, "NumImages", kind=Kind.omitted)
    acquire_time = Component(EpicsSignal, "AcquireTime", kind=Kind.config)
    file_path = Component(EpicsSignal, "FilePath", string=True, kind=Kind.omitted)
    file_name = Component(EpicsSignal, "FileName", string=True, kind=Kind.omitted)
    file_number = Component(EpicsSignalRO, "FileNumber", kind=Kind.omitted)
    full_name = Component(EpicsSignalRO, "FullFileName_RBV", string=True, kind=Kind.omitted)
    message = Component(EpicsSignalRO, "ErrorMessage_RBV", string=True, kind=Kind.omitted)
    fly_frames = Component(Signal, value=5, kind=Kind.config)

    def __init__(self, prefix: str, *, name: str, root: Path, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._root = root
        self._assets: deque[tuple[str, dict[str, Any]]] = deque()
        self._images: list[tuple[str, float]] = []  # datum_id and time of each
        self._flight: DeviceStatus | None = None

    @property
    def key(self) -> str:
        """Data key of the image."""
        return f"{self.name}_image"

    def stage(self) -> list[Any]:
        """Name the files of the scan to come."""
        staged: list[Any] = super().stage()
        self._name_files()
        return staged

    def trigger(self) -> DeviceStatus:
        """Take one image; done when its file is there."""
        return self._acquire(1)

    def kickoff(self) -> DeviceStatus:
        """Start a flight of `fly_frames` images."""
        self._name_files()
        self._flight = self._acquire(int(self.fly_frames.get()))
        started = DeviceStatus(self)
        started.set_finished()
        return started

    def complete(self) -> DeviceStatus:
        """Done when all images of the flight are in their file.

        :raises RuntimeError: if there is no flight.
        """
        if self._flight is None:
            raise RuntimeError(f"{self.name} does not fly; kickoff comes first")
        return self._flight

    def describe(self) -> dict[str, Any]:
        """The image, beside what else is read."""
        return {**super().describe(), **self._describe_image()}

    def read(self) -> dict[str, Any]:
        """The last image's datum_id, beside what else is read."""
        datum_id, taken = self._images[-1]
        return {**super().read(), self.key: {"value": datum_id, "timestamp": taken}}

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """A flight's stream is named as the camera."""
        return {self.name: self._describe_image()}

    def collect(self) -> Iterator[dict[str, Any]]:
        """One event for each image of the flight."""
        self._flight = None
        for datum_id, taken in self._images:
            yield {
                "data": {self.key: datum_id},
                "timestamps": {self.key: taken},
                "time": taken,
                "filled": {self.key: False},
            }

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """`resource` and `datum` of the images since the last call."""
        while self._assets:
            yield self._assets.popleft()

    def _describe_image(self) -> dict[str, Any]:
        return {
            self.key: {
                "source": f"PV:{self.prefix}",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "shape": list(SHAPE),
                "external": "FILESTORE:",
            }
        }

    def _name_files(self) -> None:
        self.file_path.put(time.strftime("%Y/%m/%d"), wait=True)
        self.file_name.put(f"{self.name}_{uuid.uuid4().hex[:8]}", wait=True)

    def _acquire(self, images: int) -> DeviceStatus:
        exposure = float(self.acquire_time.get())
        status = DeviceStatus(self, timeout=30.0 + 2 * images * exposure)
        self.num_images.put(images, wait=True)

        def written(**_: Any) -> None:
            reason = self.message.get()
            if reason:
                status.set_exception(RuntimeError(f"{self.name}: {reason}"))
                return
            self._note_images(images)
            status.set_finished()

        self.acquire.put(1, callback=written)
        return status

    def _note_images(self, images: int) -> None:
        path = Path(str(self.full_name.get())).relative_to(self._root)
        resource, compose_datum, _ = compose_resource(
            spec=CAMERA_SPEC,
            root=str(self._root),
            resource_path=path.as_posix(),
            resource_kwargs={"dataset": DATASET},
        )
        resource.pop("run_start", None)  # the RunEngine knows it
        self._assets.append(("resource", dict(resource)))
        taken = time.time()
        self._images = []
        for index in range(images):
            datum = compose_datum(datum_kwargs={"index": index})
            self._assets.append(("datum", dict(datum)))
            self._images.append((datum["datum_id"], taken))
