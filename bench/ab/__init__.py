"""Two revisions of this project against each other, in turns, until the verdict is safe."""
