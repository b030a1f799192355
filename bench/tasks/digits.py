"""Classification of scikit-learn's 8×8 handwritten digits."""

from bench.tasks.images import ImageTask
from bench.tasks.imageset import digits


class DigitsTask(ImageTask):
    """1,797 images of ten classes at 17 grey levels, 80/10/10."""

    def __init__(self, *, levels: int, n_classes: int, height: int, width: int) -> None:
        super().__init__(digits(), levels=levels, n_classes=n_classes, height=height, width=width)
