"""SPICE (Anderson et al. 2016): how many of the facts in a caption the references state, and the other way round.

pycocoevalcap carries the program but not the parser of sentences that it needs, Stanford CoreNLP 3.6.0 (500 MB): who
has it names its folder. The program's own front writes its results by a script engine that Java has lacked since 15,
so a front of a few lines stands here, which `java` compiles as it starts.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

from training.metrics.counts import Rows
from training.metrics.java import MetricsError, package, run
from training.metrics.tokens import Tokens

JARS = "stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"
VARIABLE = "CORENLP_HOME"
WHERE = (
    f"put {' and '.join(JARS)} into a folder and name it by --spice-jars or {VARIABLE} (they are in "
    "stanford-corenlp-full-2015-12-09.zip on nlp.stanford.edu/software, and on Maven Central as "
    "edu.stanford.nlp:stanford-corenlp:3.6.0 without and with the classifier 'models')"
)
SECONDS = 6 * 3600  # 40,000 images with their references
FRONT = """
import edu.anu.spice.*;
import java.io.*;
import java.util.*;

// A line holds a caption and its references, parted by tabs; SPICE's F-score of each goes out, in order.
class Front {
    public static void main(String[] arguments) throws IOException {
        SpiceParser parser = new SpiceParser(null, Runtime.getRuntime().availableProcessors(), true);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        List<String> said = new ArrayList<>(), meant = new ArrayList<>();
        List<Integer> sizes = new ArrayList<>();
        for (String line = lines.readLine(); ; line = lines.readLine()) {
            if (said.size() == 100 || (line == null && !said.isEmpty())) {
                List<SceneGraph> truths = parser.parseCaptions(meant, sizes), guesses = parser.parseCaptions(said);
                for (int i = 0; i < said.size(); i++) {
                    TupleSet guess = new TupleSet(guesses.get(i)), truth = new TupleSet(truths.get(i));
                    System.out.println(new Evaluation(guess, truth, false, true).f);
                }
                said.clear(); meant.clear(); sizes.clear();
            }
            if (line == null) return;
            String[] parts = line.split("\\t", -1);
            said.add(parts[0]);
            meant.addAll(Arrays.asList(parts).subList(1, parts.length));
            sizes.add(parts.length - 1);
        }
    }
}
"""


def find_jars(folder: Path | None = None) -> Path | None:
    """Returns the folder that holds CoreNLP's jars: the one named, that of CORENLP_HOME, or pycocoevalcap's own.

    None where nobody has put them. Raises MetricsError when the folder that was named lacks them.
    """
    if folder is not None:
        missing = [jar for jar in JARS if not (folder / jar).is_file()]
        if missing:
            raise MetricsError(f"SPICE cannot run: {folder} lacks {' and '.join(missing)}; {WHERE}")
        return folder
    named = os.environ.get(VARIABLE)
    places = [*([Path(named)] if named else []), package() / "spice" / "lib"]
    return next((place for place in places if all((place / jar).is_file() for jar in JARS)), None)


def spice_scores(java: str, jars: Path, truths: Tokens, guesses: Tokens) -> Rows:
    """Returns SPICE's F-score of each image, in the order of `truths`: float64 (images,). Raises MetricsError."""
    home = package() / "spice"
    path = os.pathsep.join([*(str(jars / jar) for jar in JARS), str(home / "spice-1.0.jar"), str(home / "lib" / "*")])
    lines = ["\t".join([guesses[name][0], *texts]) for name, texts in truths.items()]
    with tempfile.TemporaryDirectory() as folder:
        front = Path(folder, "Front.java")
        front.write_text(FRONT, encoding="utf-8")
        command = [java, "-Xmx8G", "-Dfile.encoding=UTF-8", "-cp", path, str(front)]
        try:
            printed = [line for line in run("SPICE", command, lines, SECONDS) if line]
        except MetricsError as error:
            raise MetricsError(f"{error} (it needs a JDK, not only a JRE, and up to 8 GB of memory)") from error
    try:
        scores = np.array([float(line) for line in printed])
    except ValueError as error:
        raise MetricsError(f"SPICE printed what is no score: {error}") from error
    if len(scores) != len(lines) or not np.isfinite(scores).all():
        raise MetricsError(f"SPICE scored {int(np.isfinite(scores).sum())} of {len(lines)} captions")
    return scores
