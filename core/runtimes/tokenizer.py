"""Tokenizers of stored models, without the five seconds that importing transformers takes.

A ``tokenizer.json`` whose settings say nothing unusual is read by the ``tokenizers`` library alone,
which is also what transformers does its work with. Every other one is transformers' to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes of transformers that take a ``tokenizer.json`` as it is; others may rebuild it."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")

_USUAL = frozenset(
    [
        *_SPECIAL,
        "mask_token",
        "extra_special_tokens",
        "backend",
        "chat_template",
        "clean_up_tokenization_spaces",
        "is_local",
        "model_input_names",
        "model_max_length",
        "padding_side",
        "tokenizer_class",
    ]
)
"""Settings that change nothing about how one text is split, or that are followed here."""


class PlainTokenizer:
    """The part of a ``transformers`` tokenizer that answering needs."""

    def __init__(
        self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any], template: str | None
    ) -> None:
        """
        Args:
            settings: the content of ``tokenizer_config.json``.
            template: Jinja text of the chat template.
        """
        self.backend_tokenizer = backend
        self.chat_template = template
        self._named = {name: settings[name] for name in _SPECIAL if settings.get(name)}
        texts = [*self._named.values(), *settings.get("extra_special_tokens", ())]
        found = [backend.token_to_id(text) for text in dict.fromkeys(texts)]
        self.all_special_ids = [token_id for token_id in found if token_id is not None]

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text."""
        text = self._named.get("eos_token")
        return None if text is None else self.backend_tokenizer.token_to_id(text)

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, list[int]]:
        """Split a text."""
        encoded = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoded.ids}

    def decode(
        self,
        token_ids: Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """The text of ids; nothing is cleaned up."""
        return self.backend_tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def get_vocab(self) -> dict[str, int]:
        """Every token's text and id, added ones included."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of one token's text; None where there is no such token."""
        return self.backend_tokenizer.token_to_id(token)

    def apply_chat_template(
        self, turns: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The turns as one text.

        Raises:
            jinja2.TemplateError: the template rejects them.
        """
        assert not tokenize, "the text is wanted"
        return self._template.render(
            messages=turns,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._named,
        )

    @cached_property
    def _template(self) -> Any:
        return _environment().from_string(self.chat_template or "")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a stored model; :func:`is_plain` tells whether it needs transformers.

    Raises:
        Exception: of whatever kind the libraries raise where its files are damaged.
    """
    settings = _plain_settings(folder)
    if settings is None:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    return PlainTokenizer(backend, settings, _template_of(folder, settings))


def is_plain(folder: Path) -> bool:
    """Whether the tokenizer in ``folder`` is read without transformers."""
    return _plain_settings(folder) is not None


def _plain_settings(folder: Path) -> dict[str, Any] | None:
    """``tokenizer_config.json`` where nothing in it asks for more than is done here."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = _template_of(folder, settings)
    except (OSError, ValueError, AttributeError):
        return None
    special = [settings.get(name) for name in (*_SPECIAL, "mask_token")]
    extra = settings.get("extra_special_tokens", [])
    plain = (
        settings.get("tokenizer_class") in _CLASSES
        and settings.keys() <= _USUAL
        and not settings.get("clean_up_tokenization_spaces")
        and all(text is None or isinstance(text, str) for text in special)
        and isinstance(extra, list)
        and (template is None or (isinstance(template, str) and "generation %}" not in template))
        and (folder / "tokenizer.json").is_file()
        and not any(
            (folder / name).exists()
            for name in (
                "added_tokens.json",
                "special_tokens_map.json",
                "additional_chat_templates",
            )
        )
    )
    return settings if plain else None


def _template_of(folder: Path, settings: Mapping[str, Any]) -> Any:
    own = folder / "chat_template.jinja"
    return own.read_text(encoding="utf-8") if own.is_file() else settings.get("chat_template")


def _environment() -> Any:
    """Jinja as chat templates expect it: sandboxed, for a template comes with the model."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **how: json.dumps(
        value, **{"ensure_ascii": False, **how}
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
