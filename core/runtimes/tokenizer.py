"""Loads tokenizers of stored models, if possible without importing transformers (five seconds).

A ``tokenizer.json`` with common settings is loaded with the ``tokenizers`` library, which
transformers itself uses. Any other tokenizer is loaded with transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue.chat_template import compiled
from core.store.library_env import quick_imports

if TYPE_CHECKING:
    import tokenizers

_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes of transformers that use ``tokenizer.json`` unchanged; others may rebuild it."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")

_SUPPORTED = frozenset(
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
"""Settings that do not change how a text is tokenized, or that are implemented here."""

_OTHER_SETTINGS = ("added_tokens.json", "special_tokens_map.json", "additional_chat_templates")
"""Further files that only transformers reads."""


class PlainTokenizer:
    """The part of a ``transformers`` tokenizer that generation needs."""

    def __init__(
        self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any], template: str | None
    ) -> None:
        """
        Args:
            settings: the content of ``tokenizer_config.json``.
            template: the chat template, in Jinja.
        """
        self.backend_tokenizer = backend
        self.chat_template = template
        self._named = {name: settings[name] for name in _SPECIAL if settings.get(name)}
        texts = [*self._named.values(), *settings.get("extra_special_tokens", ())]
        found = [backend.token_to_id(text) for text in dict.fromkeys(texts)]
        self.all_special_ids = [token_id for token_id in found if token_id is not None]

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end-of-text token."""
        text = self._named.get("eos_token")
        return None if text is None else self.backend_tokenizer.token_to_id(text)

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, list[int]]:
        """Tokenize a text."""
        encoded = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoded.ids}

    def decode(
        self,
        token_ids: Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """Decode ids to text; spaces are not cleaned up."""
        return self.backend_tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def get_vocab(self) -> dict[str, int]:
        """Return text and id of every token, added tokens included."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of a token; None if there is no such token."""
        return self.backend_tokenizer.token_to_id(token)

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **template_kwargs: Any,
    ) -> str:
        """Render the messages as text, as ``transformers`` does.

        Raises:
            Exception: whatever the template raises.
        """
        assert not tokenize, "only text output is supported"
        return compiled(self.chat_template).render(
            messages=conversation,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **{**self._named, **template_kwargs},
        )


def import_tokenizers(folder: Path | None) -> None:
    """Import what :func:`load_tokenizer` needs for the tokenizer in a folder, if it is known."""
    with quick_imports():
        import tokenizers  # noqa: F401
    if folder is not None and not is_plain(folder):
        with quick_imports():
            import transformers

            _ = transformers.AutoTokenizer  # imported lazily, at the first use of the name


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a stored model, with transformers unless :func:`is_plain`.

    Raises:
        Exception: any exception of the libraries, if the files are damaged.
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
    """Whether the tokenizer in ``folder`` is loaded without transformers."""
    return _plain_settings(folder) is not None


def _plain_settings(folder: Path) -> dict[str, Any] | None:
    """Return ``tokenizer_config.json`` if :class:`PlainTokenizer` supports all of it, else None."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = _template_of(folder, settings)
    except (OSError, ValueError, AttributeError):
        return None
    special = [settings.get(name) for name in (*_SPECIAL, "mask_token")]
    extra = settings.get("extra_special_tokens", [])
    plain = (
        settings.get("tokenizer_class") in _CLASSES
        and settings.keys() <= _SUPPORTED
        and not settings.get("clean_up_tokenization_spaces")
        and all(text is None or isinstance(text, str) for text in special)
        and isinstance(extra, list)
        and (template is None or isinstance(template, str))
        and (folder / "tokenizer.json").is_file()
        and not any((folder / name).exists() for name in _OTHER_SETTINGS)
    )
    return settings if plain else None


def _template_of(folder: Path, settings: Mapping[str, Any]) -> Any:
    own = folder / "chat_template.jinja"
    return own.read_text(encoding="utf-8") if own.is_file() else settings.get("chat_template")
