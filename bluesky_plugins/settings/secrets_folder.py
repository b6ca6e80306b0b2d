"""Settings in a folder of files, as secrets are handed to a container.

A file is named like the setting in the environment, `BLUESKY_PLUGINS_REDIS__URL`, and holds
what would stand there.
"""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, EnvSettingsSource

from bluesky_plugins.settings.places import PREFIX, ConfigurationError

__all__ = ["SecretsSource", "secret_names"]


def secret_names(folder: Path | None) -> list[str]:
    """Names of the files that are settings, or mean to be; others are none of ours.

    :raises ConfigurationError: if the folder cannot be read.
    """
    if folder is None:
        return []
    try:
        # A cluster puts folders and links of its own beside the files.
        return sorted(
            path.name
            for path in folder.iterdir()
            if path.name.upper().startswith(PREFIX) and not path.is_dir()
        )
    except OSError as error:
        raise ConfigurationError(f"secrets folder {folder}: {error.strerror}") from None


class SecretsSource(EnvSettingsSource):
    """The files of a folder in place of the environment."""

    def __init__(self, settings_cls: type[BaseSettings], folder: Path | None) -> None:
        super().__init__(settings_cls)
        names = secret_names(folder)
        self.env_vars = {name.lower(): _content(Path(folder or "", name)) for name in names}


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"secret {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"secret {path} is not text: {error.reason}") from None
