"""Where the description stands in an XMP file: the few elements around it, with their places. Changes nothing.

The data model is that of Adobe's XMP Specification, part 1: properties are children of the rdf:Description elements in
rdf:RDF, and dc:description is a language alternative, an rdf:Alt of rdf:li items that each name their language.
"""

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from engine.errors import DocumentError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
DEFAULT = "x-default"
START_TAG = re.compile(r"<[^\s/>]+(?:[^\"'>]|\"[^\"]*\"|'[^']*')*>")
ATTRIBUTE = re.compile(r"\s+([^\s=]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")


@dataclass(slots=True)
class Element:
    """An element of the file. start, end: its own characters; inside, outside: those between its two tags.

    name: as it is written, with its prefix. scope: namespaces by prefix, as they hold in it. words: the text in it.
    """

    name: str
    identity: tuple[str, str]
    start: int
    inside: int
    scope: dict[str, str]
    attributes: dict[str, str]
    is_single: bool
    outside: int = 0
    end: int = 0
    children: list["Element"] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """Its prefix with the colon, or ""."""
        return self.name[: self.name.find(":") + 1]

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(self.words)

    @property
    def language(self) -> str:
        """What xml:lang says, in lower case; an item that does not say it is the default."""
        return self.attributes.get("xml:lang", DEFAULT).lower()


@dataclass(frozen=True, slots=True)
class Tree:
    """rdf:RDF, whose children are the rdf:Description elements, and below them only dc:description."""

    rdf: Element

    @property
    def subjects(self) -> list[Element]:
        """The rdf:Description elements."""
        return [child for child in self.rdf.children if child.identity == (RDF, "Description")]

    @property
    def properties(self) -> list[Element]:
        """The dc:description elements."""
        return [child for subject in self.subjects for child in subject.children]

    def as_attribute(self, subject: Element) -> str | None:
        """Returns the name of the attribute of an rdf:Description that is dc:description in short, or None."""
        for name in subject.attributes:
            prefix, _, local = name.rpartition(":")
            if prefix and (subject.scope.get(prefix), local) == (DC, "description"):
                return name
        return None


class _Reader:
    """Builds the tree while expat reads. Elements below the interesting ones are not kept, only counted."""

    def __init__(self, text: str) -> None:
        self.text, self.data = text, text.encode()
        self.open: list[Element] = []
        self.depths: list[int] = []  # of the open ones
        self.depth = 0  # of elements, those that are not kept included
        self.rdf: Element | None = None
        self.place = (0, 0)  # in bytes and in characters
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartDoctypeDeclHandler = self.refuse
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = self.finish
        self.parser.CharacterDataHandler = self.read
        self.scopes: list[dict[str, str]] = [{}]

    def here(self) -> int:
        """Returns where expat is, in characters."""
        done, characters = self.place
        now = self.parser.CurrentByteIndex
        self.place = now, characters + len(self.data[done:now].decode())
        return self.place[1]

    def refuse(self, *_: object) -> None:
        raise DocumentError("has a DTD, which XMP must not have and which is not read")

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        declared = {key[6:]: uri for key, uri in attributes.items() if key == "xmlns" or key.startswith("xmlns:")}
        self.scopes.append(scope := self.scopes[-1] | declared if declared else self.scopes[-1])
        prefix, _, local = name.rpartition(":")
        identity = scope.get(prefix, ""), local
        if self.keeps(identity):
            start = self.here()
            tag = START_TAG.match(self.text, start)
            assert tag is not None  # expat has read it
            single = tag[0].endswith("/>")
            element = Element(name, identity, start, tag.end(), scope, attributes, single)
            if self.open:
                self.open[-1].children.append(element)
            else:
                self.rdf = element
            self.open.append(element)
            self.depths.append(self.depth)
        self.depth += 1

    def keeps(self, identity: tuple[str, str]) -> bool:
        if not self.open:
            return self.rdf is None and self.depth <= 1 and identity == (RDF, "RDF")
        if self.depth != self.depths[-1] + 1:  # its parent is not kept
            return False
        if len(self.open) == 1:
            return identity == (RDF, "Description")
        return len(self.open) > 2 or identity == (DC, "description")

    def finish(self, _: str) -> None:
        self.scopes.pop()
        self.depth -= 1
        if self.depths and self.depths[-1] == self.depth:
            self.depths.pop()
            element = self.open.pop()
            element.outside = element.inside if element.is_single else self.here()
            element.end = element.inside if element.is_single else self.text.index(">", element.outside) + 1

    def read(self, words: str) -> None:
        for element in self.open[2:]:
            element.words.append(words)


def read_tree(text: str) -> Tree:
    """Reads an XMP file. Raises DocumentError if it is not XML, not XMP, or has a DTD."""
    reader = _Reader(text)
    try:
        reader.parser.Parse(reader.data, True)
    except expat.ExpatError as error:
        raise DocumentError(f"is not valid XML: {expat.ErrorString(error.code)} in line {error.lineno}") from None
    if reader.rdf is None:
        raise DocumentError("is XML, but not XMP: it has no rdf:RDF")
    return Tree(reader.rdf)
