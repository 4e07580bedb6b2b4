"""How the sources of a collection are declared: files, listings of files, lists of URLs, in a mix.

What a file is, its name tells (`.warc.gz`, `.wat.gz`, `wat.paths.gz`, `.parquet`, …); where it does
not, `kind` says it. This is settled before anything is read, so that a wrong declaration is refused
at once.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from schemas.base import Frozen
from schemas.stage import Listing

Kind = Literal["warc", "wat"]
Format = Literal["parquet", "csv", "jsonl"]

_KINDS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"\.wat(\.gz)?$|(^|[/.])wat\.paths(\.gz)?$"), "wat"),
    (re.compile(r"\.warc(\.gz)?$|(^|[/.])warc\.paths(\.gz)?$"), "warc"),
)
_FORMATS: tuple[tuple[re.Pattern[str], Format], ...] = (
    (re.compile(r"\.(parquet|pq)$"), "parquet"),
    (re.compile(r"\.[ct]sv(\.gz)?$"), "csv"),
    (re.compile(r"\.(jsonl|ndjson)(\.gz)?$"), "jsonl"),
)


def _told(text: str, endings: Any, field: str, example: str) -> Any:
    for pattern, kind in endings:
        if pattern.search(text.lower()):
            return kind
    known = ", ".join(dict.fromkeys(kind for _, kind in endings))
    raise ValueError(
        f"{text!r}: its name does not tell what it is; say `{field}`: {known} (such as {example})"
    )


class Files(Frozen):
    """WARC or WAT files.

    Attributes:
        path: a path, a glob or a URL.
        kind: what they are, where the name does not tell.
    """

    path: str = Field(min_length=1)
    kind: Kind | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        self.reader()
        return self

    @property
    def label(self) -> str:
        """What stands in `Source.declared` of its files."""
        return self.path

    def reader(self) -> dict[str, Any]:
        """What reading one of its files needs to know, beside the file."""
        example = '{path: "crawl/*", kind: warc}'
        return {"kind": self.kind or _told(self.path, _KINDS, "kind", example)}

    def source(self) -> str | Listing:
        """What is to be resolved."""
        return self.path


class ListedFiles(Listing):
    """WARC or WAT files of a path listing such as Common Crawl's `wat.paths.gz`."""

    kind: Kind | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        self.reader()
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop: {self.stop} is not after start, {self.start}")
        return self

    def reader(self) -> dict[str, Any]:
        """What reading one of its files needs to know, beside the file."""
        example = "{listing: …, prefix: …, kind: wat}"
        return {"kind": self.kind or _told(self.listing, _KINDS, "kind", example)}

    def source(self) -> str | Listing:
        """What is to be resolved."""
        return self


class Columns(Frozen):
    """Which columns of a list hold what; for a file without a header, its columns are numbered.

    Attributes:
        url, caption: of the image.
        page: URL of the page that it is on.
        license: what the list says of its license.
    """

    url: str = Field(min_length=1)
    caption: str = Field(min_length=1)
    page: str | None = None
    license: str | None = None


class UrlList(Columns):
    """Lists of image URLs with captions, as LAION, CC12M and DataComp are published.

    Attributes:
        table: a path, a glob or a URL.
        format: what they are, where the name does not tell.
        separator: between the columns of a CSV file; a tab where the name ends in .tsv.
        header: names of a CSV file's columns, where its first line does not give them.
    """

    table: str = Field(min_length=1)
    format: Format | None = None
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    header: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Self:
        reader = self.reader()
        if reader["format"] != "csv" and (self.separator or self.header):
            raise ValueError(f"separator, header: {self.table!r} is no CSV file")
        unknown = set(reader["columns"].values()) - {None, *self.header}
        if self.header and unknown:
            raise ValueError(f"header: there is no {sorted(unknown)} in {list(self.header)}")
        return self

    @property
    def label(self) -> str:
        """What stands in `Source.declared` of its files."""
        return self.table

    def reader(self) -> dict[str, Any]:
        """What reading one of its files needs to know, beside the file."""
        example = "{table: …, format: csv, url: …, caption: …}"
        tab = re.search(r"\.tsv(\.gz)?$", self.table.lower())
        return {
            "kind": "list",
            "format": self.format or _told(self.table, _FORMATS, "format", example),
            "columns": {name: getattr(self, name) for name in Columns.model_fields},
            "separator": self.separator or ("\t" if tab else ","),
            "header": self.header,
        }

    def source(self) -> str | Listing:
        """What is to be resolved."""
        return self.table


def _entry(value: Any) -> Any:
    """An entry by what it names, so that an error speaks of the one that was meant."""
    if isinstance(value, str):
        return Files(path=value)
    if not isinstance(value, dict):
        return value
    for name, model in (("path", Files), ("listing", ListedFiles), ("table", UrlList)):
        if name in value:
            return model.model_validate(value)
    raise ValueError(
        f"{value!r}: say `path`, `listing` or `table`, or give a path, a glob or a URL alone"
    )


Entry = Annotated[Files | ListedFiles | UrlList, BeforeValidator(_entry)]
