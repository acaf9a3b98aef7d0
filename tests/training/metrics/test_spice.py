"""SPICE's plumbing: its real program with a stand-in for the parser of sentences, which no package carries.

The stand-in takes every word for an object, so SPICE becomes the F-score of different words.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training.metrics import spice
from training.metrics.java import MetricsError, package
from training.metrics.spice import JARS, find_jars, spice_scores

PARSER = """
package edu.anu.spice;
import java.net.URL;
import java.util.*;
import edu.cmu.meteor.aligner.SynonymDictionary;
import edu.cmu.meteor.util.Constants;

public class SpiceParser {
    private final SynonymDictionary synonyms;

    public SpiceParser(String cache, int threads, Boolean merge) {
        try {
            String folder = Constants.DEFAULT_SYN_DIR_URL.toString();
            synonyms = new SynonymDictionary(new URL(folder + "/english.exceptions"),
                new URL(folder + "/english.synsets"), new URL(folder + "/english.relations"));
        } catch (java.io.IOException error) { throw new RuntimeException(error); }
    }

    public List<SceneGraph> parseCaptions(List<String> captions) {
        return parseCaptions(captions, Collections.nCopies(captions.size(), 1));
    }

    public List<SceneGraph> parseCaptions(List<String> captions, List<Integer> sizes) {
        List<SceneGraph> graphs = new ArrayList<>();
        Iterator<String> rest = captions.iterator();
        for (int size : sizes) {
            SceneGraph graph = new SceneGraph(synonyms, true);
            for (int i = 0; i < size; i++) for (String word : rest.next().split(" ")) graph.addObject(word);
            graphs.add(graph);
        }
        return graphs;
    }
}
"""


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    for jar in JARS:
        (tmp_path / jar).touch()
    return tmp_path


@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK")
def test_the_program_scores_captions_on_the_java_that_is_there(tmp_path: Path) -> None:
    home = package()
    shutil.copy(home / "tokenizer" / "stanford-corenlp-3.4.1.jar", tmp_path / JARS[0])
    source = tmp_path / "SpiceParser.java"
    source.write_text(PARSER)
    path = os.pathsep.join([str(tmp_path / JARS[0]), str(home / "spice" / "spice-1.0.jar"), str(home / "spice/lib/*")])
    subprocess.run(["javac", "-d", tmp_path / "classes", "-cp", path, source], check=True, capture_output=True)
    shutil.make_archive(str(tmp_path / "models"), "zip", tmp_path / "classes")
    (tmp_path / "models.zip").rename(tmp_path / JARS[1])  # before the real parser on the class path
    truths = {"a": ["dog ball", "dog snow"], "b": ["girl"], "c": ["boat sea", "boat harbour café"]}
    guesses = {"a": ["dog tree"], "b": ["girl"], "c": ["zebra"]}
    found = spice_scores("java", tmp_path, truths, guesses)
    precision, recall = 1 / 2, 1 / 3
    assert found.tolist() == pytest.approx([2 * precision * recall / (precision + recall), 1, 0])


def test_the_jars_are_those_named_then_those_of_the_environment(jars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(spice.VARIABLE, raising=False)
    assert find_jars(jars) == jars
    monkeypatch.setenv(spice.VARIABLE, str(jars))
    assert find_jars() == jars


def test_jars_that_nobody_put_anywhere_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(spice.VARIABLE, str(tmp_path))
    monkeypatch.setattr(spice, "package", lambda: tmp_path)
    assert find_jars() is None


def test_a_named_folder_without_the_jars_is_an_error_that_says_where_they_are(jars: Path) -> None:
    (jars / JARS[1]).unlink()
    with pytest.raises(MetricsError, match=r"lacks stanford-corenlp-3\.6\.0-models\.jar; put .* into a folder"):
        find_jars(jars)


@pytest.mark.parametrize(
    ("printed", "sentence"), [(["0.5"], "scored 1 of 2"), (["0.5", "NaN"], "scored 1 of 2"), (["x", "y"], "no score")]
)
def test_a_program_that_prints_something_else_is_an_error(
    printed: list[str], sentence: str, jars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spice, "run", lambda *_: printed)
    with pytest.raises(MetricsError, match=sentence):
        spice_scores("java", jars, {"a": ["x"], "b": ["y"]}, {"a": ["x"], "b": ["y"]})


def test_a_java_that_cannot_compile_is_an_error_that_asks_for_a_jdk(jars: Path) -> None:
    with pytest.raises(MetricsError, match=r"SPICE failed: .*JDK"):
        spice_scores(sys.executable, jars, {"a": ["x"]}, {"a": ["x"]})
