"""The description in an XMP sidecar: reads it, and writes it without touching anything else. Knows no file names."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.writing.document import Document, Edit
from engine.writing.xmp_tree import ATTRIBUTE, DC, DEFAULT, RDF, Element, Tree, read_tree

DECLARED = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][\w.-]*)""")
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NEW = f"""\
<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
 </rdf:RDF>
</x:xmpmeta>
"""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """An XMP file and where the description stands in it."""

    document: Document
    tree: Tree

    @classmethod
    def of(cls, data: bytes) -> "Sidecar":
        """Reads a file. Raises DocumentError: not XML, not XMP, with a DTD, in an unknown encoding."""
        declared = DECLARED.match(data)
        wide = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(data[:2], "utf-8")  # where no byte order mark says it
        document = Document.of(data, [declared[1].decode() if declared else wide])
        return cls(document, read_tree(document.text))

    @classmethod
    def new(cls) -> "Sidecar":
        """Returns one that says nothing."""
        return cls.of(NEW.encode())

    def is_described(self, language: str) -> bool:
        """Says whether people see a description by default, or in this language."""
        told = self._told()
        return DEFAULT in told or language.lower() in told

    def describe(self, text: str, language: str, *, overwrite: bool = False) -> bytes:
        """Returns the file with a description in this language, which is also the default.

        One that is there is kept unless overwrite is given, and one in another language always: where there is one, and
        no default, the default is left to it.
        """
        told = self._told()
        if self.is_described(language) and not overwrite:
            return self.document.edited(())
        text = NOT_XML.sub(" ", text)
        languages = [language] if told and not overwrite else list(dict.fromkeys((DEFAULT, language)))
        found = max(self.tree.properties, key=lambda each: bool(each.text.strip()), default=None)
        edits: Iterable[Edit]
        if found is None:
            edits = [*self._without_attributes(), self._with_property(text, languages)]
        elif not found.children:
            edits = [self._with_alternatives(found, text, languages)]
        else:
            edits = self._with_items(found.children[0], text, languages)
        return self.document.edited(edits)

    def _told(self) -> set[str]:
        """Returns the languages that there is a description in."""
        told = set()
        for found in self.tree.properties:
            items = [item for container in found.children for item in container.children]
            told |= {item.language for item in items or [found] if item.text.strip()}
        for subject in self.tree.subjects:
            if (name := self.tree.as_attribute(subject)) and subject.attributes[name].strip():
                told.add(DEFAULT)
        return told

    def _without_attributes(self) -> Iterator[Edit]:
        """Yields what removes the short form, which cannot name a language."""
        for subject in self.tree.subjects:
            short = self.tree.as_attribute(subject)
            name_ends = subject.start + 1 + len(subject.name)
            for attribute in ATTRIBUTE.finditer(self.document.text, name_ends, subject.inside):
                if attribute[1] == short:
                    yield Edit(*attribute.span(), "")

    def _with_property(self, text: str, languages: list[str]) -> Edit:
        """Returns what adds dc:description to the first rdf:Description where dc is known, or else to the first."""
        subjects, rdf = self.tree.subjects, self.tree.rdf
        owner = max(subjects, key=lambda subject: DC in subject.scope.values(), default=rdf)
        breaks, unit = self._layout(owner)
        if owner is not rdf:
            return self._insertion(owner, _property(owner.scope, text, languages, breaks, unit))
        prefix, declared = _prefix(rdf.scope, RDF, named=True)  # an attribute's name has one
        dc, dc_declared = _prefix(rdf.scope, DC, named=True)
        inner = breaks and breaks + unit
        property_ = inner + _property(rdf.scope | {dc[:-1]: DC}, text, languages, inner, unit)
        head = f'{prefix}Description{declared} {prefix}about=""{dc_declared}'
        return self._insertion(rdf, f"<{head}>{property_}{breaks}</{prefix}Description>")

    def _with_alternatives(self, found: Element, text: str, languages: list[str]) -> Edit:
        """Returns what puts an rdf:Alt in place of all that is in a dc:description."""
        own = self._break_before(found.start)
        inner = own and own + self._layout(found)[1]
        new = inner + _alternatives(found.scope, text, languages, inner, inner and inner[len(own) :]) + own
        if found.is_single:
            return Edit(found.inside - len("/>"), found.inside, f">{new}</{found.name}>")
        return Edit(found.inside, found.outside, new)

    def _with_items(self, container: Element, text: str, languages: list[str]) -> Iterator[Edit]:
        """Yields what sets the text of items, and adds those that are missing: the default first."""
        added: list[str] = []
        there = {item.language: item for item in reversed(container.children)}
        for language in languages:
            item = there.get(language.lower())
            if item is None:
                added.append(language)
            elif item.is_single:
                yield Edit(item.inside - len("/>"), item.inside, f">{_escaped(text)}</{item.name}>")
            elif item.text != text:
                yield Edit(item.inside, item.outside, _escaped(text))
        if not added:
            return
        prefix, declared = _prefix(container.scope, RDF)
        items = [_item(prefix, declared, language, text) for language in added]
        if DEFAULT in added or not container.children:
            breaks, _ = self._layout(container)
            yield self._insertion(container, breaks.join(items))
        else:
            before = there.get(DEFAULT, container.children[-1])
            breaks = self._break_before(before.start)
            yield Edit(before.end, before.end, "".join(breaks + item for item in items))

    def _insertion(self, element: Element, new: str) -> Edit:
        """Returns what makes new text the first child of an element."""
        breaks, _ = self._layout(element)
        own = self._break_before(element.start) if breaks else ""
        if element.is_single:
            return Edit(element.inside - len("/>"), element.inside, f">{breaks}{new}{own}</{element.name}>")
        is_closed_beside = element.inside == element.outside
        return Edit(element.inside, element.inside, breaks + new + (own if is_closed_beside else ""))

    def _layout(self, element: Element) -> tuple[str, str]:
        """Returns the line break and indentation before each child of an element, and what it is indented by.

        Both are "" where a file has no lines.
        """
        text = self.document.text
        own = self._break_before(element.start)
        gap = text[element.inside : element.outside]
        gap = gap[: len(gap) - len(gap.lstrip())]
        if "\n" in gap and element.inside + len(gap) < element.outside:  # as the first child has it
            breaks = self.document.newline + gap.rpartition("\n")[2]
            unit = breaks.removeprefix(own) if own and breaks.startswith(own) else ""
            return breaks, unit or " "
        return (own + " ", " ") if own else ("", "")

    def _break_before(self, place: int) -> str:
        """Returns the line break and indentation before an element; "" if it does not begin a line."""
        head = self.document.text[self.document.text.rfind("\n", 0, place) + 1 : place]
        return "" if head.strip() or place == len(head) else self.document.newline + head


def _property(scope: dict[str, str], text: str, languages: list[str], breaks: str, unit: str) -> str:
    prefix, declared = _prefix(scope, DC, named=True)
    inner = breaks and breaks + unit
    alternatives = inner + _alternatives(scope, text, languages, inner, unit)
    return f"<{prefix}description{declared}>{alternatives}{breaks}</{prefix}description>"


def _alternatives(scope: dict[str, str], text: str, languages: list[str], breaks: str, unit: str) -> str:
    prefix, declared = _prefix(scope, RDF)
    items = (f"{breaks and breaks + unit}{_item(prefix, '', language, text)}" for language in languages)
    return f"<{prefix}Alt{declared}>{''.join(items)}{breaks}</{prefix}Alt>"


def _item(prefix: str, declared: str, language: str, text: str) -> str:
    return f'<{prefix}li{declared} xml:lang="{language}">{_escaped(text)}</{prefix}li>'


def _prefix(scope: dict[str, str], uri: str, *, named: bool = False) -> tuple[str, str]:
    """Returns a prefix with colon for a namespace, and what declares it if it is not known in this scope.

    named: the default namespace, which has no prefix, will not do.
    """
    known = [prefix for prefix, its_uri in scope.items() if its_uri == uri]
    for prefix in filter(None, known):
        return f"{prefix}:", ""
    if known and not named:
        return "", ""
    usual = "rdf" if uri == RDF else "dc" if scope.get("dc") != RDF else "dc1"  # what is inside still needs the other
    return f"{usual}:", f' xmlns:{usual}="{uri}"'


def _escaped(text: str) -> str:
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;")):
        text = text.replace(sign, name)
    return text
