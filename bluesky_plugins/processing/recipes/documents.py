"""The documents of a run and the files that they name, as placeholders see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import event_model
from pydantic import Field

from bluesky_plugins.processing.model import Noun

__all__ = ["PRIMARY", "FileRecord", "RunDocuments"]

PRIMARY = "primary"
Document = Mapping[str, Any]


class FileRecord(Noun):
    """A file of a run."""

    run_uid: str
    path: str = Field(description="absolute, as the beamline sees it")
    role: Literal["input", "output", "log"] = "input"
    data_key: str | None = Field(None, description="whose data it holds, if that is known")
    spec: str = Field("", description="what reads it, e.g. BP_CAMERA_HDF5")
    uid: str = Field("", description="of the document that named it")
    size: int | None = Field(None, ge=0, description="bytes")
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class RunDocuments:
    """What is known of a run so far: of events the last one of each stream."""

    start: Document
    stop: Document | None = None
    descriptors: Mapping[str, Document] = field(default_factory=dict)
    events: Mapping[str, Document] = field(default_factory=dict)
    files: tuple[FileRecord, ...] = ()

    @property
    def uid(self) -> str:
        """Of the run."""
        return str(self.start["uid"])

    @property
    def began(self) -> float:
        """When it began, s since the epoch."""
        return float(self.start["time"])

    def with_document(self, name: str, doc: Document) -> RunDocuments:
        """The run with one more of its documents; one that came before changes nothing."""
        match name:
            case "stop":
                return replace(self, stop=doc)
            case "descriptor":
                return replace(self, descriptors={**self.descriptors, str(doc["uid"]): doc})
            case "event":
                return self._with_event(doc)
            case "event_page":
                run = self
                for event in event_model.unpack_event_page(doc):
                    run = run._with_event(event)
                return run
            case "resource":
                path = f"{str(doc['root']).rstrip('/')}/{str(doc['resource_path']).lstrip('/')}"
                return self._with_file(path, doc, None)
            case "stream_resource":
                return self._with_file(_path_of(str(doc["uri"])), doc, doc.get("data_key"))
            case _:
                return self

    def stream(self, descriptor: str) -> str | None:
        """The name of the stream of a descriptor, if that is known."""
        doc = self.descriptors.get(descriptor)
        return None if doc is None else str(doc.get("name", PRIMARY))

    def _with_event(self, doc: Document) -> RunDocuments:
        stream = self.stream(str(doc["descriptor"]))
        if stream is None:
            return self
        last = self.events.get(stream)
        if last is not None and last["seq_num"] > doc["seq_num"]:
            return self
        data_keys = self.descriptors[str(doc["descriptor"])].get("data_keys", {})
        external = {
            str(doc["data"][key]).partition("/")[0]: str(key)
            for key, about in data_keys.items()
            if "external" in about and key in doc["data"]
        }
        files = tuple(
            file.model_copy(update={"data_key": external[file.uid]})
            if file.data_key is None and file.uid in external
            else file
            for file in self.files
        )
        return replace(self, events={**self.events, stream: doc}, files=files)

    def _with_file(self, path: str | None, doc: Document, data_key: Any) -> RunDocuments:
        uid = str(doc["uid"])
        if path is None or any(file.uid == uid for file in self.files):
            return self
        spec = str(doc.get("spec") or doc.get("mimetype") or "")
        file = FileRecord(run_uid=self.uid, path=path, data_key=data_key, spec=spec, uid=uid)
        return replace(self, files=(*self.files, file))


def _path_of(uri: str) -> str | None:
    """The path of a file on this file system; None for what is kept elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        return None
    return unquote(parts.path)
