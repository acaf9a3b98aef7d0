"""The bundle: manifest, vocabulary and checks of the folder that passes from export to engine."""
