"""Settings that come from the environment, each named ``PADDOCK_…``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import PersonMistake

CHECKOUT = Path(__file__).resolve().parent.parent
"""Folder that holds ``streamlit_app.py``; ``.paddock/`` lies in it unless told otherwise."""


class Settings(BaseSettings):
    """What a person may set before start; every field has a sound default."""

    model_config = SettingsConfigDict(env_prefix="PADDOCK_", env_ignore_empty=True, extra="ignore")

    home: Path = Field(
        default=CHECKOUT / ".paddock",
        description="Where converted models, downloads and the run database live.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the run database; SQLite in the home folder by default.",
    )
    max_loaded_models: int = Field(
        default=4, ge=1, description="Models kept in memory at once before the oldest must go."
    )
    memory_reserve_mib: int = Field(
        default=512, ge=0, description="Memory in MiB that loading a model must leave free."
    )
    max_queue: int = Field(
        default=32, ge=1, description="Answers that may wait for one loaded model."
    )
    generation_timeout_s: float = Field(
        default=1800.0, gt=0, description="Seconds after which an answer ends with 'timeout'."
    )

    @property
    def models_dir(self) -> Path:
        """Folder of the converted models, one folder per model and precision."""
        return self.home / "models"

    @property
    def downloads_dir(self) -> Path:
        """Folder of checkpoints fetched from a hub."""
        return self.home / "downloads"

    @property
    def resolved_database_url(self) -> str:
        """SQLAlchemy URL of the run database."""
        return self.database_url or f"sqlite:///{(self.home / 'paddock.db').as_posix()}"


def load_settings() -> Settings:
    """Read the settings from the environment as it is now.

    Raises:
        PersonMistake: a variable holds a value that it cannot have; the text names it.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = error.errors()[0]
        name = f"PADDOCK_{wrong['loc'][0]}".upper()
        raise PersonMistake(
            f"The environment variable {name} is {wrong['input']!r}, but its "
            f"{wrong['msg'][0].lower()}{wrong['msg'][1:]}; correct or unset it."
        ) from error
    return settings.model_copy(update={"home": settings.home.expanduser().resolve()})
