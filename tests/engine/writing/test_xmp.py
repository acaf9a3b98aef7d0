"""Laws of XMP sidecars: the description is read back by others, and nothing else in the file changes."""

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import DocumentError
from engine.writing.xmp import NEW, Sidecar

RDF, DC = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://purl.org/dc/elements/1.1/"
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
TEXT = 'A "cat" & <dog>, it\'s ]]> 😀 写真 Grüße'
HEAD = f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" xmlns:dc="{DC}"'


def with_items(*items: tuple[str, str]) -> bytes:
    inside = "".join(f'<rdf:li xml:lang="{language}">{text}</rdf:li>' for language, text in items)
    return f"{HEAD}><dc:description><rdf:Alt>{inside}</rdf:Alt></dc:description></rdf:Description></rdf:RDF>".encode()


def descriptions(data: bytes) -> dict[str, str]:
    """Reads the descriptions by language with another parser."""
    items = ET.fromstring(data).iterfind(f".//{{{RDF}}}Description/{{{DC}}}description/{{{RDF}}}Alt/{{{RDF}}}li")
    return {item.get(LANG, ""): item.text or "" for item in items}


def without_description(data: bytes) -> str:
    """Returns the canonical form of all else; an rdf:Description that says nothing is nothing."""
    root = ET.fromstring(data)
    for name, least in ((f"{{{DC}}}description", False), (f"{{{RDF}}}Description", True)):
        for parent in list(root.iter()):
            for child in list(parent):
                says = len(child) or set(child.attrib) - {f"{{{RDF}}}about"}
                if child.tag == name and not (least and says):
                    parent.remove(child)
    return ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True)


def alike(first: bytes, second: bytes) -> int:
    """Returns how many bytes both begin with."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def changed(before: bytes, after: bytes) -> tuple[bytes, bytes]:
    """Returns the stretch of both files outside of which they are equal."""
    start = alike(before, after)
    end = alike(before[start:][::-1], after[start:][::-1])
    return before[start : len(before) - end], after[start : len(after) - end]


VARIANTS = {
    "nothing": NEW.encode(),
    "self-closing": f'{HEAD} dc:format="a>b"/></rdf:RDF>'.encode(),
    "empty": f"{HEAD}></rdf:Description></rdf:RDF>".encode(),
    "an empty rdf:RDF": f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="{RDF}"/></x:xmpmeta>'.encode(),
    "other prefixes": (
        f'<q:RDF xmlns:q="{RDF}">\n <q:Description xmlns:dc="urn:x" q:about="" dc:a="1"/>\n'
        f' <q:Description q:about="" xmlns:d="{DC}">\n  <d:format>x</d:format>\n </q:Description>\n</q:RDF>'
    ).encode(),
    "without prefixes": f'<RDF xmlns="{RDF}"><Description><a xmlns="urn:a">1</a></Description></RDF>'.encode(),
    "dc without a prefix": (
        f'<r:RDF xmlns:r="{RDF}" xmlns="{DC}"><r:Description><format>x</format></r:Description></r:RDF>'
    ).encode(),
    "a blank one": with_items(("x-default", " ")),
    "one without items": f"{HEAD}>\n\t<dc:description/>\n</rdf:Description></rdf:RDF>".encode(),
    "a packet with padding": (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\r\n{HEAD}>\r\n <!-- <dc:description> -->\r\n'
        f' <dc:title>&#65;&amp;</dc:title>\r\n</rdf:Description></rdf:RDF>{" " * 2000}\r\n<?xpacket end="w"?>'
    ).encode(),
    "utf-8 with a mark": b"\xef\xbb\xbf" + NEW.encode(),
    "utf-16": NEW.replace("UTF-8", "UTF-16").encode("utf-16"),
    "utf-16 without a mark": f"{HEAD}/></rdf:RDF>".encode("utf-16-le"),
    "latin-1": f'<?xml version="1.0" encoding="iso-8859-1"?>{HEAD} dc:format="\xe9"/></rdf:RDF>'.encode("latin-1"),
}


@pytest.mark.parametrize("before", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_description_is_added_to_every_kind_of_file_and_all_else_stays(before: bytes) -> None:
    after = Sidecar.of(before).describe(TEXT, "en")
    mark = b"\xff\xfe" if before[1:2] == b"\0" else b""  # the other parser needs one
    assert descriptions(mark + after) == {"x-default": TEXT, "en": TEXT}
    assert without_description(mark + after) == without_description(mark + before)
    old, _ = changed(before, after)
    assert old.replace(b"\0", b"").strip() in (b"", b"/")  # that of a tag that closed itself
    assert Sidecar.of(after).describe("another", "en") == after  # it is kept from now on
    assert Sidecar.of(after).describe(TEXT, "en", overwrite=True) == after


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_the_text(tmp_path: Path) -> None:
    kinds: tuple[str, ...] = (
        "nothing",
        "self-closing",
        "empty",
        "a blank one",
        "one without items",
        "a packet with padding",
    )
    kinds += ("utf-8 with a mark", "utf-16")  # it knows no other encodings, and the usual prefixes only
    texts = {}
    for kind in kinds:
        text = texts[str(tmp_path / f"{kind}.xmp")] = (
            TEXT if kind != "utf-16" else TEXT.replace("😀", "")
        )  # half is lost
        (tmp_path / f"{kind}.xmp").write_bytes(Sidecar.of(VARIANTS[kind]).describe(text, "en"))
    asked = ("-XMP-dc:Description", "-XMP-dc:Description-en", "-validate")
    shown = subprocess.run(["exiftool", "-json", *asked, str(tmp_path)], capture_output=True, check=True)
    for read in json.loads(shown.stdout):
        text = texts.pop(read["SourceFile"])
        assert (read["Description"], read["Description-en"], read["Validate"]) == (text, text, "OK")
    assert not texts


GAPS = st.sampled_from([" ", "\n  ", "\r\n\t"])
SPACES = st.sampled_from(["", " ", "\n", "\n  ", "\r\n\t", "<!-- > -->", "<?p >?>"])


@st.composite
def sidecars(draw: st.DrawFn) -> bytes:
    """Draws files with other properties, in any layout, with any prefixes, without a description."""
    rdf = draw(st.sampled_from(["rdf", "r", "dc"]))
    dc = draw(st.sampled_from([None, "dc", "d"]).filter(lambda prefix: prefix != rdf))
    known = f' xmlns:{dc}="{DC}"' if dc else ""
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        attributes = "".join(f"{draw(GAPS)}p:a{i}='>\"&amp;'" for i in range(draw(st.integers(0, 2))))
        head = f'{rdf}:Description{known} {rdf}:about="" xmlns:p="urn:p"{attributes}'
        inside = draw(SPACES).join([f"<p:b{draw(SPACES) and ' '}>&#x41;<![CDATA[<]]></p:b>"] * draw(st.integers(0, 2)))
        alone = not inside and draw(st.booleans())
        parts.append(f"<{head}/>" if alone else f"<{head}>{draw(SPACES)}{inside}{draw(SPACES)}</{rdf}:Description>")
        parts.append(draw(SPACES))
    body = f'<{rdf}:RDF xmlns:{rdf}="{RDF}">{draw(SPACES)}{"".join(parts)}</{rdf}:RDF>'
    if draw(st.booleans()):
        body = f'{draw(SPACES)}<x:xmpmeta xmlns:x="adobe:ns:meta/">{draw(SPACES)}{body}</x:xmpmeta>'
    return body.lstrip().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))


@settings(deadline=None, derandomize=True, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    sidecars(), st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1)
)
def test_one_stretch_of_a_file_changes_and_it_holds_the_description(before: bytes, text: str) -> None:
    after = Sidecar.of(before).describe(text, "pt-BR")
    assert descriptions(after) == {"x-default": text, "pt-BR": text}
    assert without_description(after) == without_description(before)
    old, _ = changed(before, after)
    assert old.replace(b"\0", b"") in (b"", b"/")
    assert Sidecar.of(after).describe(text, "pt-BR", overwrite=True) == after


DEFAULT, GERMAN = ("x-default", "old"), ("de", "alt")


@pytest.mark.parametrize(
    ("items", "kept", "overwritten"),
    [
        ([DEFAULT], [DEFAULT], [("x-default", "new"), ("en", "new")]),
        ([("en", "old")], [("en", "old")], [("x-default", "new"), ("en", "new")]),
        ([GERMAN], [GERMAN, ("en", "new")], [("x-default", "new"), ("en", "new"), GERMAN]),
        ([DEFAULT, GERMAN], [DEFAULT, GERMAN], [("x-default", "new"), ("en", "new"), GERMAN]),
        ([("x-default", ""), ("EN", "")], [("x-default", "new"), ("EN", "new")], [("x-default", "new"), ("EN", "new")]),
    ],
)  # fmt: skip
def test_what_people_wrote_is_kept_and_other_languages_always(
    items: list[tuple[str, str]], kept: list[tuple[str, str]], overwritten: list[tuple[str, str]]
) -> None:
    before = with_items(*items)
    assert Sidecar.of(before).describe("new", "en") == with_items(*kept)
    assert Sidecar.of(before).describe("new", "en", overwrite=True) == with_items(*overwritten)


def test_lines_are_indented_like_their_neighbours() -> None:
    assert Sidecar.new().describe("a dog", "x-default").decode() == NEW.replace(
        " </rdf:RDF>",
        f"""\
  <rdf:Description rdf:about="" xmlns:dc="{DC}">
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">a dog</rdf:li>
    </rdf:Alt>
   </dc:description>
  </rdf:Description>
 </rdf:RDF>""",
    )


@pytest.mark.parametrize(
    "form", [' dc:description="old" dc:format="x"/>', "><dc:description>old</dc:description></rdf:Description>"]
)
def test_short_forms_are_kept_too_and_become_whole_ones(form: str) -> None:
    before = f"{HEAD}{form}</rdf:RDF>".encode()
    assert Sidecar.of(before).is_described("en")
    assert Sidecar.of(before).describe("new", "en") == before
    after = Sidecar.of(before).describe("new", "en", overwrite=True)
    assert descriptions(after) == {"x-default": "new", "en": "new"}
    assert b"old" not in after


def test_control_characters_which_xml_cannot_hold_become_spaces() -> None:
    after = Sidecar.new().describe("a\0b\x1bc\ud800d\uffffe\tf\rg", "x-default")
    assert descriptions(after) == {"x-default": "a b c d e\tf\rg"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not valid XML: no element found in line 1"),
        (b"junk", "is not valid XML: syntax error in line 1"),
        (f"{HEAD}>\n</rdf:RDF>".encode(), "is not valid XML: mismatched tag in line 2"),
        (b"<html/>", "is XML, but not XMP: it has no rdf:RDF"),
        (f"<a><b>{HEAD}/></rdf:RDF></b></a>".encode(), "is XML, but not XMP: it has no rdf:RDF"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "has a DTD"),
        (b"<a>&x;</a>", "is not valid XML: undefined entity in line 1"),
        (b"<a>\xff</a>", "is not text in the encoding utf-8"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "is not text in the encoding no-such"),
        (b'<?xml version="1.0" encoding="hex"?><a/>', "is not text in the encoding hex"),
    ],
)
def test_what_is_no_sidecar_is_one_clear_sentence(data: bytes, why: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Sidecar.of(data)
    assert str(caught.value).startswith(why)


def test_ten_thousand_levels_and_a_billion_laughs_are_no_trouble() -> None:
    deep = f"{HEAD}><p:a xmlns:p='urn:p'>{'<p:a>' * 10_000}{'</p:a>' * 10_000}</p:a></rdf:Description></rdf:RDF>"
    assert b"new" in Sidecar.of(deep.encode()).describe("new", "en")
    with pytest.raises(DocumentError, match="DTD"):
        Sidecar.of(b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>')
