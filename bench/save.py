"""The trained model of a record as a checkpoint of its family.

    python -m bench.save RECORD DIR [--results results] [--format huggingface]

RECORD is the id of a record of scenario `quality`, or the beginning of one. DIR is what
`model.pretrained` takes and what the family's own libraries load.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.arguments import RESULTS, given_path
from bench.errors import BadInput, one_line
from bench.store import Record, Store, StoreError

WEIGHTS = "checkpoint.safetensors"


def parser() -> argparse.ArgumentParser:
    """The arguments of `python -m bench.save`."""
    made = argparse.ArgumentParser(
        prog="python -m bench.save", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("record", metavar="RECORD")
    made.add_argument("to", metavar="DIR", type=given_path)
    made.add_argument("--results", type=given_path, default=RESULTS, help="folder of records")
    made.add_argument("--format", help="huggingface, state_spaces or blinkdl; default: its own")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 2 with one sentence where the record cannot be saved."""
    options = parser().parse_args(argv)
    try:
        save(options.record, options.to, options.results, options.format)
    except (BadInput, StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def save(identity: str, to: Path, results: Path, form: str | None) -> None:
    """Build the record's model, give it the record's weights, write both to `to`."""
    store = Store(results)
    record = _find(store, identity)
    model, task = (record["config"].get(key) or {} for key in ("model", "task"))
    language = record["cell"]["kind"] == "language" and not task.get("form")
    if not model.get("checkpoints") or not language:
        raise BadInput(
            f"{record['id']} is of model={record['cell']['model']} on "
            f"task={record['cell']['task']}; language models of families with a format are saved"
        )
    if all(listed.get("name") != WEIGHTS for listed in record.get("artefacts") or []):
        raise BadInput(f"{record['id']} holds no weights; records of scenario quality do")
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise BadInput(f"{to} is {'not empty' if to.is_dir() else 'a file'}; give a new folder")
    # torch and Hydra are loaded for a record that can be saved alone.
    from bench.building import filled, formats

    to.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed when it is whole: a disk that takes no more leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as beside:
        new = Path(beside) / f"saved{to.suffix}"
        try:
            built = filled(record["shape"], store.artefact(record, WEIGHTS))
            written = formats(model).write(built, new, form)
        except ValueError as error:
            said = one_line(str(error)).replace(str(new), str(to))
            raise BadInput(f"{record['id']}: {said}") from error
        new.replace(to)
    path = to / written.relative_to(new)
    print(f"{path}: model={record['cell']['model']} model.pretrained={path}")


def _find(store: Store, identity: str) -> Record:
    if not identity:
        raise BadInput("RECORD is empty; give the id of a record, or the beginning of one")
    records, _ = store.briefs()
    found = [record for record in records if str(record["id"]).startswith(identity)]
    if len(found) != 1:
        what = f"{len(found)} records" if found else "no record"
        raise BadInput(f"{what} in {store.root} begins with {identity}; give the id of one")
    return store.read(found[0]["id"])


if __name__ == "__main__":
    sys.exit(main())
