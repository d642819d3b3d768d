"""Train an embedded model from nothing: ``python -m core.demo.train MODEL [--resume]``.

The corpus is generated while it is read, so that no example is seen twice. The learning rate
warms up, stays constant, and falls to zero over the last part of the tokens asked for
(warm-up, stable, decay): a training may be stopped at any checkpoint and finished later with
``--resume --tokens N``. ``--from-weights`` goes on from the finished weights of
``core/demo/<model>/`` instead of from nothing, with their tokenizer: for a corpus that has changed.
Checkpoints and the log lie in ``core/demo/training/<model>/``; the finished model is written to
``core/demo/<model>/``. Stopping and continuing the process by signals is harmless.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.demo.batches import PROMPT_WEIGHT, Batch, chunk_batches
from core.demo.models import (
    DEMO_MODELS,
    TRAINING_DIR,
    DemoModel,
    build_model,
    build_tokenizer,
    read_json,
    write_model,
)
from core.demo.optimizer import Optimizer, fast_bfloat16

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger("core.demo.train")

SEED = 20
BATCH_TOKENS = 4096
WARMUP_STEPS = 80
COOLDOWN_SHARE = 0.4
"""Last share of the tokens over which the learning rate falls to zero."""
EMA_DECAY = 0.99
"""Of the averaged weights that are written out, per step."""
CHECKPOINT_SECONDS = 300.0
LOG_EVERY = 20


@dataclass
class Progress:
    """How far a training has come."""

    seed: int
    step: int = 0
    tokens: int = 0
    chunk: int = 0
    position: int = 0
    """Batches of the chunk already read."""
    seconds: float = 0.0
    loss: float = 0.0
    """Answer loss per token, averaged over the latest steps."""
    first_step: int = 0
    """Steps made before the latest start from finished weights."""
    first_tokens: int = 0
    """Tokens read before it."""


def rate_scale(progress: Progress, total: int) -> float:
    """Learning rate relative to its peak: warm-up, stable, decay.

    Args:
        total: tokens to read in all, those before a start from finished weights included.
    """
    warm = min(1.0, (progress.step - progress.first_step + 1) / WARMUP_STEPS)
    left = max(0.0, (total - progress.tokens) / (total - progress.first_tokens))
    return max(0.01, min(warm, left / COOLDOWN_SHARE))


def losses(network: PreTrainedModel, body: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Weighted loss, and the mean loss of the answers' tokens.

    Args:
        body: the network without its output layer, perhaps compiled.
    """
    import torch
    from torch.nn.functional import cross_entropy

    targets = batch.ids[:, 1:]
    weights = batch.weights[:, 1:]
    chosen = weights > 0
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
        hidden = body(batch.ids[:, :-1], use_cache=False).last_hidden_state
        logits = network.get_output_embeddings()(hidden[chosen])
    each = cross_entropy(logits.float(), targets[chosen], reduction="none")
    weight = weights[chosen]
    answer = weight > PROMPT_WEIGHT
    return (each * weight).sum() / weight.sum(), each[answer].detach().mean()


class Training:
    """A model in training, with its checkpoint."""

    def __init__(
        self,
        model: DemoModel,
        seed: int,
        total: int,
        batch_tokens: int = BATCH_TOKENS,
        compiled: bool = False,
        rate: float = 1.0,
        from_weights: bool = False,
    ) -> None:
        import torch

        self.model = model
        self.rate = rate
        self.total = total
        self.batch_tokens = batch_tokens
        self.folder = TRAINING_DIR / model.key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self._tokenizer(from_weights)
        self.network = build_model(model, self.tokenizer, seed)
        self.body = self.network.base_model
        if compiled:
            self.body = torch.compile(self.body, dynamic=True)
        self.optimizer = Optimizer(self.network)
        self.averaged = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.progress = Progress(seed)
        if from_weights:
            self.start_from_weights()

    def _tokenizer(self, finished: bool) -> PreTrainedTokenizerFast:
        from transformers import AutoTokenizer

        folder = self.folder / "tokenizer"
        if finished:
            AutoTokenizer.from_pretrained(self.model.folder).save_pretrained(folder)
        elif not (folder / "tokenizer.json").is_file():
            build_tokenizer(self.model).save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)

    @property
    def checkpoint(self) -> Path:
        """File of the latest checkpoint."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Go on from the latest checkpoint."""
        import torch

        state = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])

    def start_from_weights(self) -> None:
        """Go on from the finished weights, whose tokens and minutes count on."""
        from safetensors.torch import load_file

        weights = load_file(self.model.folder / "model.safetensors")
        self.network.load_state_dict({name: value.float() for name, value in weights.items()})
        self.averaged = {k: v.clone() for k, v in self.network.state_dict().items()}
        record = read_json(self.model.folder / "training.json")
        self.progress = Progress(
            self.progress.seed,
            step=record["step"],
            tokens=record["tokens"],
            seconds=record["seconds"],
            loss=record["loss"],
            first_step=record["step"],
            first_tokens=record["tokens"],
        )

    def save(self) -> None:
        """Write the checkpoint beside the old one and put it in its place."""
        import torch

        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        beside = self.checkpoint.with_suffix(".new")
        torch.save(state, beside)
        beside.replace(self.checkpoint)

    def export(self, folder: Path) -> None:
        """Write the averaged weights as a model."""
        network = build_model(self.model, self.tokenizer, self.progress.seed)
        network.load_state_dict(self.averaged)
        write_model(self.model, network, self.tokenizer, folder)
        record = {**asdict(self.progress), "batch_tokens": self.batch_tokens, "total": self.total}
        text = json.dumps(record, indent=2)
        (folder / "training.json").write_text(text + "\n", encoding="utf-8")

    def run(self) -> None:
        """Read the corpus until the tokens asked for are used up.

        Raises:
            SystemExit: the process was asked to end; the checkpoint is up to date.
        """
        saved = time.monotonic()
        ending = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ending.set())
        while self.progress.tokens < self.total:
            position = self.progress.position
            for number, batch in enumerate(self._chunk()):
                if number < position:
                    continue
                self._step(batch)
                self.progress.position = number + 1
                if ending.is_set() or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if ending.is_set():
                    raise SystemExit(f"stopped at step {self.progress.step}; go on with --resume")
                if self.progress.tokens >= self.total:
                    break
            else:
                self.progress.chunk += 1
                self.progress.position = 0
        self.save()

    def _chunk(self) -> Any:
        return chunk_batches(
            self.model, self.tokenizer, self.progress.seed, self.progress.chunk, self.batch_tokens
        )

    def _step(self, batch: Batch) -> None:
        import torch

        started = time.monotonic()
        loss, answer_loss = losses(self.network, self.body, batch)
        loss.backward()
        scale = self.rate * rate_scale(self.progress, self.total)
        self.optimizer.step(scale)
        decay = min(EMA_DECAY, (self.progress.step + 1) / (self.progress.step + 10))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.averaged[name].lerp_(value, 1 - decay)
        progress = self.progress
        progress.step += 1
        progress.tokens += batch.ids.numel()
        progress.seconds += time.monotonic() - started
        keep = min(0.95, progress.step / (progress.step + 5))
        progress.loss = keep * progress.loss + (1 - keep) * float(answer_loss)
        if progress.step % LOG_EVERY == 0:
            self._log(scale)

    def _log(self, scale: float) -> None:
        progress = self.progress
        line = {**asdict(progress), "rate": round(scale, 3)}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log.info(
            "%s step %d, %.2f of %.1f M tokens, answer loss %.4f, rate %.2f, %.0f tokens/s",
            self.model.key,
            progress.step,
            progress.tokens / 1e6,
            self.total / 1e6,
            progress.loss,
            scale,
            progress.tokens / max(progress.seconds, 1e-9),
        )


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(prog="python -m core.demo.train", description=__doc__)
    parser.add_argument("model", choices=list(DEMO_MODELS))
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint")
    parser.add_argument(
        "--from-weights", action="store_true", help="go on from the weights in the repository"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--tokens", type=float, help="millions of tokens to read in all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument(
        "--compile", action="store_true", help="compile the network first; needs a C++ compiler"
    )
    parser.add_argument("--export", type=Path, help="write the checkpoint's weights here and stop")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = DEMO_MODELS[chosen.model]
    total = int(chosen.tokens * 1e6) if chosen.tokens else model.training_tokens
    training = Training(
        model,
        chosen.seed,
        total,
        chosen.batch_tokens,
        chosen.compile,
        chosen.rate,
        chosen.from_weights,
    )
    if chosen.resume or chosen.export:
        if not training.checkpoint.is_file():
            parser.error(f"there is no checkpoint of {model.key}; start without --resume")
        training.resume()
    if chosen.export:
        training.export(chosen.export)
        return
    training.run()
    training.export(model.folder)
    log.info("wrote %s", model.folder)


if __name__ == "__main__":
    main()
