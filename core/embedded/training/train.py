"""Train an embedded model: ``python -m core.embedded.training.train MODEL [--resume]``.

The corpus is generated during training, so that no example is seen twice. The learning rate warms
up, stays constant, and decays to zero over the last part of the requested tokens (a
warmup-stable-decay schedule): a run may be stopped at any checkpoint and finished later with
``--resume --tokens N``. ``--from-weights`` continues from the finished weights and tokenizer in
``core/embedded/<model>/`` instead of starting from scratch, for a corpus that has changed.
Checkpoints and the log are in ``core/embedded/training/checkpoints/<model>/``; the finished model
is written to ``core/embedded/<model>/``. The process may be stopped and continued by signals.
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

from core.embedded.training.batches import PROMPT_WEIGHT, Batch, chunk_batches
from core.embedded.training.build import build_model, build_tokenizer, read_json, write_model
from core.embedded.training.models import EMBEDDED_MODELS, EmbeddedModel
from core.embedded.training.optimizer import Optimizer, fast_bfloat16

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger("core.embedded.training.train")

CHECKPOINTS_DIR = Path(__file__).with_name("checkpoints")
"""Checkpoints and logs; not part of the repository."""

SEED = 20
BATCH_TOKENS = 4096
WARMUP_STEPS = 80
COOLDOWN_SHARE = 0.4
"""Last share of the tokens, over which the learning rate decays to zero."""
EMA_DECAY = 0.99
"""Decay per step of the exponential moving average of the weights, which is what is written."""
CHECKPOINT_SECONDS = 300.0
LOG_EVERY = 20


@dataclass
class Progress:
    """Progress of a training run."""

    seed: int
    step: int = 0
    tokens: int = 0
    chunk: int = 0
    position: int = 0
    """Number of batches of the chunk that have been read."""
    seconds: float = 0.0
    loss: float = 0.0
    """Answer loss per token, as a moving average over recent steps."""
    first_step: int = 0
    """Step at the latest start with ``--from-weights``, 0 from scratch."""
    first_tokens: int = 0
    """Tokens read before that step."""


def rate_scale(progress: Progress, total: int) -> float:
    """Return the learning rate relative to its peak: warm-up, stable, decay.

    Args:
        total: tokens to read, including those before a start with ``--from-weights``.
    """
    warm = min(1.0, (progress.step - progress.first_step + 1) / WARMUP_STEPS)
    left = max(0.0, (total - progress.tokens) / (total - progress.first_tokens))
    return max(0.01, min(warm, left / COOLDOWN_SHARE))


def losses(network: PreTrainedModel, body: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the weighted loss, and the mean loss of the answers' tokens.

    Args:
        body: the network without its output layer, compiled or not.
    """
    import torch
    from torch.nn.functional import cross_entropy

    targets = batch.ids[:, 1:]
    weights = batch.weights[:, 1:]
    counted = weights > 0
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
        hidden = body(batch.ids[:, :-1], use_cache=False).last_hidden_state
        logits = network.get_output_embeddings()(hidden[counted])
    each = cross_entropy(logits.float(), targets[counted], reduction="none")
    weight = weights[counted]
    answer = weight > PROMPT_WEIGHT
    return (each * weight).sum() / weight.sum(), each[answer].detach().mean()


class Training:
    """A training run and its checkpoint."""

    def __init__(
        self,
        model: EmbeddedModel,
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
        self.folder = CHECKPOINTS_DIR / model.key
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

    def _tokenizer(self, from_weights: bool) -> PreTrainedTokenizerFast:
        from transformers import AutoTokenizer

        folder = self.folder / "tokenizer"
        if from_weights:
            AutoTokenizer.from_pretrained(self.model.folder).save_pretrained(folder)
        elif not (folder / "tokenizer.json").is_file():
            build_tokenizer(self.model).save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)

    @property
    def checkpoint(self) -> Path:
        """Path of the latest checkpoint."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Load the latest checkpoint."""
        import torch

        state = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])

    def start_from_weights(self) -> None:
        """Load the finished weights, and continue the count of their steps, tokens and seconds."""
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
        """Write a new checkpoint file and rename it over the old one."""
        import torch

        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        new = self.checkpoint.with_suffix(".new")
        torch.save(state, new)
        new.replace(self.checkpoint)

    def export(self, folder: Path) -> None:
        """Write the averaged weights as a model to ``folder``."""
        network = build_model(self.model, self.tokenizer, self.progress.seed)
        network.load_state_dict(self.averaged)
        write_model(self.model, network, self.tokenizer, folder)
        record = {**asdict(self.progress), "batch_tokens": self.batch_tokens, "total": self.total}
        text = json.dumps(record, indent=2)
        (folder / "training.json").write_text(text + "\n", encoding="utf-8")

    def run(self) -> None:
        """Train until the requested number of tokens has been read.

        Raises:
            SystemExit: the process received SIGTERM; the checkpoint was saved first.
        """
        saved = time.monotonic()
        terminated = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: terminated.set())
        while self.progress.tokens < self.total:
            position = self.progress.position
            for number, batch in enumerate(self._chunk()):
                if number < position:
                    continue
                self._step(batch)
                self.progress.position = number + 1
                if terminated.is_set() or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if terminated.is_set():
                    raise SystemExit(
                        f"Stopped at step {self.progress.step}. Continue with --resume."
                    )
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
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m core.embedded.training.train", description=__doc__
    )
    parser.add_argument("model", choices=list(EMBEDDED_MODELS))
    parser.add_argument("--resume", action="store_true", help="continue from the latest checkpoint")
    parser.add_argument(
        "--from-weights", action="store_true", help="continue from the included weights"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--tokens", type=float, help="millions of tokens to read")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the network with torch.compile; needs a C++ compiler",
    )
    parser.add_argument(
        "--export", type=Path, help="write the checkpoint's weights to this folder and exit"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = EMBEDDED_MODELS[options.model]
    total = int(options.tokens * 1e6) if options.tokens else model.training_tokens
    training = Training(
        model,
        options.seed,
        total,
        options.batch_tokens,
        options.compile,
        options.rate,
        options.from_weights,
    )
    if options.resume or options.export:
        if not training.checkpoint.is_file():
            parser.error(f"{model.key} has no checkpoint; start without --resume")
        training.resume()
    if options.export:
        training.export(options.export)
        return
    training.run()
    training.export(model.folder)
    log.info("wrote %s", model.folder)


if __name__ == "__main__":
    main()
