"""A dataset of image shards described in Croissant 1.0 (JSON-LD), for other people's loaders.

Each shard is a file with its sha256; its images, captions and records are sets of files in it.
Where the data come from and how they were cleaned stands in Croissant's vocabulary for responsible
AI (`rai:`), with the parameters of every stage. Each image has terms of its own, so that no license
is claimed for the whole unless one is given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.errors import PermanentError
from infra.store import Store
from schemas.artifact import ImageShards, Unit
from schemas.base import canonical
from schemas.manifest import Manifest, Output
from schemas.stage import Source

_CR = "http://mlcommons.org/croissant/"
_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty",
    "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
    "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip
# The context that Croissant 1.0 prescribes.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": _CR,
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": f"{_CR}RAI/",
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS},
}
# Keys of a sample's JSON, their type, and what they are.
_COLUMNS = (
    ("key", "Text", "Hash of image URL, page URL and caption; the name of the sample."),
    ("image_url", "URL", "Where the image was fetched."),
    ("page_url", "Text", "The page that shows it; empty if it is not known."),
    ("domain", "Text", "Host name of the page, else of the image."),
    ("caption", "Text", "The text that was found with the image."),
    ("caption_source", "Text", "Where on the page the caption stood."),
    ("source", "Text", "The source file in which the pair was found."),
    ("offset", "Integer", "Of the record in that file in bytes, or number of its row."),
    ("language", "Text", "ISO 639-1 code of the caption's language."),
    ("license", "Text", "License links that the page declares for the image."),
    ("opt_out", "Text", "Opt-out signals that were seen and do not forbid training."),
    ("sha256", "Text", "Of the image's bytes as they were fetched."),
    ("width", "Integer", "Pixels, the right way up."),
    ("height", "Integer", "Pixels, the right way up."),
)
_SETS = (
    # Every ending of an image; of `txt` and `json` the last letters are among t and n.
    ("image-files", "image/*", "*.*[!tn]", "The images as they were fetched."),
    ("caption-files", "text/plain", "*.txt", "Their captions."),
    ("record-files", "application/json", "*.json", "What is known of each pair."),
)


def describe(
    store: Store, chain: Iterable[Manifest], target: Path, base: str = "", license_url: str = ""
) -> dict[str, Any]:
    """The description of the image shards that the first manifest of a chain keeps.

    Args:
        chain: manifests, each before those it was made from (`infra.trace`).
        target: file that it will be written to; shards of a local store are named from there.
        base: URL of the folder where copies of the shards lie under their names, if they do.
        license_url: license under which the dataset as a whole is published.

    Raises:
        PermanentError: if the stage keeps no image shards.
    """
    manifests = list(chain)
    last, output = manifests[0], _shards(manifests[0])
    files = [_file(unit, number, _url(store, unit, number, target, base))
             for number, unit in enumerate(output.units)]  # fmt: skip
    names = [{"@id": file["@id"]} for file in files]
    made = datetime.fromtimestamp(last.run.ended, UTC)
    name = f"{last.pipeline}-{last.stage}"
    records = sum(unit.records or 0 for unit in output.units)
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": f"{_CR}1.0",
        "name": name,
        "description": (
            f"{records:,} images with captions, as the stage {last.stage} of the pipeline"
            f" {last.pipeline} left them. Content digest {output.digest}; manifest"
            f" {last.provenance}. Images keep the terms of the sites they are from."
        ),
        "version": f"1.0.0+{output.digest[:16]}",  # by content: only the part after + says more
        "datePublished": f"{made:%Y-%m-%d}",
        "citeAs": f"{name}, made with Tapir {made:%Y-%m-%d}, content digest {output.digest}",
        "isBasedOn": sorted({_origin(source) for one in manifests for source in one.sources}),
        "rai:dataCollection": [_sentence(one) for one in manifests if one.sources],
        "rai:dataPreprocessingProtocol": [_sentence(one) for one in reversed(manifests)],
        "distribution": [*files, *(_file_set(*one, names) for one in _SETS)],
        "recordSet": [*_plain_sets(), _records()],
    }
    return {**described, "license": license_url} if license_url else described


def _shards(manifest: Manifest) -> Output:
    found = [o for o in manifest.outputs.values() if o.kind == ImageShards.kind]
    if not found:
        kinds = ", ".join(sorted({output.kind for output in manifest.outputs.values()}))
        raise PermanentError(
            f"{manifest.pipeline}/{manifest.stage} keeps no {ImageShards.kind} but"
            f" {kinds or 'nothing'}; name a stage that does"
        )
    return found[0]


def _url(store: Store, unit: Unit, number: int, target: Path, base: str) -> str:
    if base:
        return f"{base.rstrip('/')}/{_name(unit, number)}"
    address = store.path(store.blob(unit.sha256))
    if store.is_local:
        return os.path.relpath(address, target.absolute().parent)
    return f"{store.url}/{store.blob(unit.sha256)}"


def _name(unit: Unit, number: int) -> str:
    # Units of one artifact may share a name, as shards of equal parts do.
    return f"{number:06d}-{unit.name}"


def _file(unit: Unit, number: int, url: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": _name(unit, number), "name": _name(unit, number),
        "contentUrl": url, "contentSize": f"{unit.size} B",
        "encodingFormat": "application/x-tar", "sha256": unit.sha256,
    }  # fmt: skip


def _file_set(
    name: str, encoding: str, includes: str, text: str, files: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet", "@id": name, "name": name, "description": text,
        "containedIn": files, "encodingFormat": encoding, "includes": includes,
    }  # fmt: skip


def _plain_sets() -> list[dict[str, Any]]:
    """Images and captions by the key that their names begin with."""
    found = []
    for name, content, kind in (
        ("images", "image", "ImageObject"),
        ("captions", "caption", "Text"),
    ):
        files = f"{content}-files"
        key = {
            "fileSet": {"@id": files}, "extract": {"fileProperty": "filename"},
            "transform": {"regex": r"^([0-9a-f]{32})\..*$"},
        }  # fmt: skip
        whole = {"fileSet": {"@id": files}, "extract": {"fileProperty": "content"}}
        fields = [
            _field(name, "key", "Text", "The name of the sample.", key),
            _field(name, content, kind, f"The {content} itself.", whole),
        ]
        found.append(_record_set(name, f"The {content} of each pair, by key.", fields))
    return found


def _records() -> dict[str, Any]:
    """What is known of each pair; one JSON object each."""
    fields = [
        _field(
            "pairs", name, kind, text,
            {"fileSet": {"@id": "record-files"}, "extract": {"jsonPath": f"$.{name}"}},
        )
        for name, kind, text in _COLUMNS
    ]  # fmt: skip
    return _record_set("pairs", "Where each pair is from, its terms, its digest and size.", fields)


def _record_set(name: str, text: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet", "@id": name, "name": name, "description": text,
        "key": {"@id": f"{name}/key"}, "field": fields,
    }  # fmt: skip


def _field(
    record_set: str, name: str, kind: str, text: str, source: dict[str, Any]
) -> dict[str, Any]:
    return {
        "@type": "cr:Field", "@id": f"{record_set}/{name}", "name": name, "description": text,
        "dataType": f"sc:{kind}", "source": source,
    }  # fmt: skip


def _origin(source: Source) -> str:
    """A URL, or the name of a local file with its digest: folders here mean nothing elsewhere."""
    return source.uri if "://" in source.uri else f"{source.name} ({source.identity})"


def _sentence(manifest: Manifest) -> str:
    """One stage: its function, its parameters, what it kept and dropped, its manifest."""
    counted = ", ".join(
        f"{name} {count:,}" for name, count in sorted(manifest.counts.items())
        if name == "kept" or name.startswith("dropped/")
    )  # fmt: skip
    return (
        f"{manifest.stage}: {manifest.identity.task} with {canonical(manifest.identity.params)};"
        f" {counted or 'nothing counted'}; manifest {manifest.provenance}"
    )
