"""One settings model for every command and every process that imports the package.

A value is taken from the first of these that has it: arguments, the environment
(`BLUESKY_PLUGINS_<SECTION>__<FIELD>`), a file of that name in the folder
`BLUESKY_PLUGINS_SECRETS_DIR`, the YAML file (`--config` or `BLUESKY_PLUGINS_CONFIG`), the stack
that `bluesky-plugins up` runs in the state folder, the default.
"""

from .loading import load_settings
from .model import (
    AdaptiveSettings,
    EmbeddedSettings,
    HttpSettings,
    IocsSettings,
    KafkaSettings,
    MongoSettings,
    RecordingSettings,
    RedisSettings,
    Settings,
)
from .places import ConfigurationError, secrets_dir, state_dir
from .processing import (
    BeamtimeSettings,
    LocalTargetSettings,
    PathSettings,
    ProcessingSettings,
    SlurmTargetSettings,
    TargetSettings,
)

__all__ = [
    "AdaptiveSettings",
    "BeamtimeSettings",
    "ConfigurationError",
    "EmbeddedSettings",
    "HttpSettings",
    "IocsSettings",
    "KafkaSettings",
    "LocalTargetSettings",
    "MongoSettings",
    "PathSettings",
    "ProcessingSettings",
    "RecordingSettings",
    "RedisSettings",
    "Settings",
    "SlurmTargetSettings",
    "TargetSettings",
    "load_settings",
    "secrets_dir",
    "state_dir",
]
