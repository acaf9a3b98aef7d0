"""The bundle, a folder that export writes and the engine reads: manifest, vocabulary and checks."""
