"""Which format a path is in, and the two verbs of all of them."""

from pathlib import Path

from models.checkpoints import blinkdl, huggingface, rwkv4, state_spaces
from models.checkpoints.checkpoint import Checkpoint
from models.objectives.autoregressive import LanguageModel

PATTERNS = ["*.json", "*.safetensors", "*.bin", "*.pth", "*.model", "*.txt"]  # of a hub's model
FORMATS = ("huggingface", "state_spaces", "blinkdl")


class Formats:
    """The checkpoints of one family of ours.

    These are "transformer", "moe", "mamba", "mamba2", "rwkv", "rwkv4" and "hf".

    `default` is the family's own format, in which `write` writes.
    """

    def __init__(self, *, family: str, default: str) -> None:
        if default not in FORMATS:
            raise ValueError(f"default is {default!r}; allowed are {', '.join(FORMATS)}")
        self.family, self.default = family, default
        self._pth = rwkv4 if family == "rwkv4" else blinkdl

    def read(self, name: str) -> Checkpoint:
        """The checkpoint at a path or of that name on the hub; `ValueError` where there is none."""
        path = located(name)
        if path.is_file():
            return self._pth.read(path, self.family)
        files = sorted([*path.glob("*.pth")])
        if not (path / "config.json").is_file():
            if len(files) == 1:
                return self._pth.read(files[0], self.family)
            raise ValueError(
                f"{path} holds no config.json and "
                + (f"{len(files)} .pth files; name one of them" if files else "no .pth file")
            )
        if state_spaces.is_one(path):
            return state_spaces.read(path, self.family)
        return huggingface.read(path, self.family)

    def write(self, model: LanguageModel, path: Path, form: str | None = None) -> Path:
        """Write `model` in the family's own format, or in `form`; what `read` takes."""
        form = form or self.default
        if form not in FORMATS:
            raise ValueError(f"form is {form!r}; allowed are {', '.join(FORMATS)}")
        if form == "blinkdl":  # a file
            path = path if path.suffix == ".pth" else path / "rwkv.pth"
            self._pth.write(model, path)
        else:
            {"huggingface": huggingface, "state_spaces": state_spaces}[form].write(model, path)
        return path


def located(name: str) -> Path:
    """The file or folder of that name, else the folder of that model of the hub."""
    path = Path(name).expanduser()
    return path if path.exists() else from_hub(name)


def from_hub(name: str) -> Path:
    """The folder of a model of the Hugging Face hub, from the local cache where it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS))
    except HFValidationError as error:
        raise ValueError(f"{name} is no file, no folder and no name on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} is no file and no folder, and the hub does not give it: {reason}"
        ) from error
