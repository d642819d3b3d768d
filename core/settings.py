"""Settings from environment variables, each named ``PADDOCK_…``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import AccessDeniedError, UserError

CHECKOUT = Path(__file__).resolve().parent.parent
"""Folder that contains ``core``: a clone of the repository, or ``site-packages`` if installed."""
INSTALLED = CHECKOUT.name in ("site-packages", "dist-packages")
"""Whether this is the installed package, which has no app, instead of a clone."""

KIOSK_ERROR = (
    "Models cannot be downloaded, converted or deleted in kiosk mode. Use a model that is on this "
    "machine, or start without PADDOCK_KIOSK."
)

_YEAR_H = 366 * 24


class AuthMode(StrEnum):
    """When sign-in is required."""

    AUTO = "auto"
    """Everywhere except in a browser on this machine."""
    REQUIRED = "required"
    """Always."""


class Registration(StrEnum):
    """Who may register."""

    OPEN = "open"
    """Anybody who reaches the server."""
    INVITATION = "invitation"
    """Anybody with an invitation code from an administrator."""
    CLOSED = "closed"
    """Nobody; the command line can still create administrators."""


class Settings(BaseSettings):
    """All settings; every field has a default."""

    model_config = SettingsConfigDict(env_prefix="PADDOCK_", env_ignore_empty=True, extra="ignore")

    home: Path = Path.home() / ".paddock" if INSTALLED else CHECKOUT / ".paddock"
    """Folder of converted models, downloads and the run database."""
    database_url: str | None = None
    """SQLAlchemy URL of the run database; SQLite in the home folder by default."""
    max_loaded_models: int = Field(4, ge=1)
    """Models kept in memory; the least recently used one is unloaded first."""
    memory_reserve_mib: int = Field(512, ge=0)
    """Memory in MiB that loading a model must leave free."""
    max_queue: int = Field(100, ge=1)
    """Answers that may wait for one model."""
    max_at_once: int = Field(8, ge=1, le=64)
    """Answers that one model generates in a batch, if its runtime supports it."""
    generation_timeout_s: float = Field(1800.0, gt=0)
    """Seconds after which an answer ends with the stop reason 'timeout'."""

    answers_at_once: int = Field(4, ge=1)
    """Answers of one user that run at the same time; further ones wait."""
    answers_waiting: int = Field(28, ge=0)
    """Further answers of one user that may wait; by default a program can send 32 requests at the
    same time."""
    max_characters: int = Field(200_000, ge=1, le=200_000)
    """Maximum length of instruction and context together, in characters. The longest context of the
    catalogue is 32,768 tokens."""
    max_new_tokens: int | None = Field(None, ge=1, le=1_000_000)
    """Maximum number of new tokens in a request; by default the context length of the model."""

    kiosk: bool = False
    """Kiosk mode for public demonstrations: nothing is downloaded, converted or deleted, and a page
    resets two minutes after the last interaction."""

    remotes: str | None = None
    """Remote servers with an OpenAI-compatible API, as NAME=URL separated by spaces; the API key of
    each is in PADDOCK_REMOTE_KEY_NAME."""
    remote_connect_s: float = Field(5.0, gt=0, le=60)
    """Connection timeout of remote servers in seconds."""
    remote_silence_s: float = Field(120.0, gt=0)
    """Seconds without data after which a request to a remote server fails, before the first token
    and between two tokens."""
    remote_at_once: int = Field(16, ge=1, le=256)
    """Concurrent requests to one remote server."""

    auth: AuthMode = AuthMode.AUTO
    """'auto': browsers on this machine may use Paddock as guests, everybody else signs in;
    'required': everybody signs in."""
    registration: Registration = Registration.INVITATION
    """Who may register: 'open' (anybody), 'invitation' (with a code) or 'closed'."""
    session_idle_h: float = Field(7 * 24.0, gt=0, le=_YEAR_H)
    """Hours without a visit after which a session ends."""
    session_max_h: float = Field(30 * 24.0, gt=0, le=_YEAR_H)
    """Hours after sign-in at which a session ends in any case."""
    invitation_h: float = Field(7 * 24.0, gt=0, le=_YEAR_H)
    """Default validity of an invitation code in hours."""
    failure_window_s: float = Field(900.0, ge=1, le=86_400)
    """Window in seconds in which failed sign-ins and registrations are counted."""
    failures_per_address: int = Field(20, ge=1)
    """Failed sign-ins from one address in that window."""
    failures_per_account: int = Field(30, ge=1, le=100)
    """Failed sign-ins for one name in that window, from all unknown browsers."""
    failures_per_device: int = Field(10, ge=1)
    """Failed sign-ins for one name in that window from a browser where it signed in before."""
    registrations_per_address: int = Field(20, ge=1)
    """Registrations attempted from one address in that window."""
    max_hashings: int = Field(2, ge=1)
    """Passwords hashed at the same time; each takes 67 MB of memory."""

    @field_validator("auth", "registration", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    def check_not_kiosk(self) -> None:
        """Check that models may be downloaded, converted and deleted.

        Raises:
            AccessDeniedError: kiosk mode is on.
        """
        if self.kiosk:
            raise AccessDeniedError(KIOSK_ERROR)

    @property
    def models_dir(self) -> Path:
        """Folder of converted models, with one folder per model and precision."""
        return self.home / "models"

    @property
    def import_dir(self) -> Path:
        """The only folder whose model folders may be entered from other machines."""
        return self.home / "import"

    @property
    def downloads_dir(self) -> Path:
        """Folder of checkpoints downloaded from the Hugging Face Hub."""
        return self.home / "downloads"

    @property
    def resolved_database_url(self) -> str:
        """SQLAlchemy URL of the run database."""
        return self.database_url or f"sqlite:///{(self.home / 'paddock.db').as_posix()}"


def load_settings() -> Settings:
    """Read the settings from the current environment.

    Raises:
        UserError: a variable has an invalid value; the text names it.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = error.errors()[0]
        name = f"PADDOCK_{wrong['loc'][0]}".upper()
        raise UserError(
            f"The environment variable {name} is {wrong['input']!r}, but its "
            f"{wrong['msg'][0].lower()}{wrong['msg'][1:]}. Correct or unset it."
        ) from error
    return settings.model_copy(update={"home": settings.home.expanduser().resolve()})
