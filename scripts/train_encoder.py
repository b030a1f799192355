"""Train the encoder that judges samples of digits, and write its weights.

    python scripts/train_encoder.py bench/tasks/data/digits_encoder.safetensors

The committed file is part of the definition of the `generate` task: a new one raises its version.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

# Run as a file, this one's own folder stands there.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.tasks.base import shuffled
from bench.tasks.encoder import DigitsEncoder
from bench.tasks.imageset import digits

STEPS, BATCH, RATE, SMOOTHING = 3000, 64, 3e-3, 0.1


def main() -> None:
    """Train on the train split, say the accuracies, save."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/train_encoder.py FILE.safetensors")
    target = Path(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = digits()
    pixels = {s: torch.from_numpy(p) for s, p in images.pixels.items()}
    labels = {s: torch.from_numpy(y) for s, y in images.labels.items()}
    encoder = DigitsEncoder()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    order = shuffled(len(labels["train"]), BATCH, np.random.default_rng(0))
    for index in (next(order) for _ in range(STEPS)):
        x = pixels["train"][index].float()
        # Noise of one level: features that a single grey level turns over would judge noise.
        logits = encoder(x + torch.randn_like(x))
        loss = F.cross_entropy(logits, labels["train"][index], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    encoder.eval()
    with torch.no_grad():
        pooled = encoder.pooled(pixels["train"])
        encoder.mean.copy_(pooled.mean(0))
        encoder.std.copy_(pooled.std(0))
        for split in pixels:
            accuracy = (encoder(pixels[split]).argmax(1) == labels[split]).float().mean()
            print(f"{split}: accuracy {accuracy:.4f}")
    save_file(encoder.state_dict(), target, metadata={"script": "scripts/train_encoder.py"})
    target.chmod(0o644)  # the library writes files that only their owner can read
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
