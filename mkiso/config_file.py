"""Reading the configuration: once at the start of a process; an unknown key is an error that names the nearest one.

Order: defaults, the YAML file (`MKISO_CONFIG`, else ./config.yaml), the environment (`MKISO__SECTION__KEY`), secrets from files (`…_file`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mkiso.config import Publisher, Settings
from mkiso.errors import ConfigurationError

ENVIRONMENT_PREFIX = "MKISO__"


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration; without `path` from MKISO_CONFIG, else ./config.yaml where there is one, else the defaults.

    Raises ConfigurationError whose `problems` name everything that is wrong at once.
    """
    environment = os.environ if environment is None else environment
    named = path or (Path(environment["MKISO_CONFIG"]) if environment.get("MKISO_CONFIG") else None)
    file = named or Path("config.yaml")
    if named is not None and not named.is_file():
        raise ConfigurationError(f"The configuration file {named} doesn't exist.")
    values = _read_yaml(file) if file.is_file() else {}
    _overlay_environment(values, environment)
    _read_secret_files(values, file.parent)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems = tuple(_problem(entry) for entry in error.errors())
        raise ConfigurationError(f"The configuration has {len(problems)} problem(s): " + "; ".join(problems), problems) from None
    return _absolute(settings, file.parent)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The configuration file {file} can't be read: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"The configuration file {file} must hold sections such as 'pacs:', not a {type(values).__name__}.")
    return {section: {} if content is None else content for section, content in values.items()}


def _overlay_environment(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigurationError(f"The environment variable {name} names a key below {section}, which is no section.")
        try:
            target[key] = _value_of(text)
        except yaml.YAMLError:
            raise ConfigurationError(f"The environment variable {name} is no YAML list or mapping.") from None


def _value_of(text: str) -> Any:
    """Lists and mappings are read as YAML; everything else stays text for pydantic to read, so that a key such as 0123 stays itself."""
    return yaml.safe_load(text) if text.lstrip()[:1] in ("[", "{") else text


def _read_secret_files(values: dict[str, Any], folder: Path) -> None:
    for key, value in list(values.items()):
        if isinstance(value, dict):
            _read_secret_files(value, folder)
        elif key.endswith("_file") and isinstance(value, str):
            file = folder / value
            try:
                values[key.removesuffix("_file")] = file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"The secret file {file} of {key} can't be read: {error}") from None
            del values[key]


def _problem(entry: Any) -> str:
    where = ".".join(str(part) for part in entry["loc"])
    if entry["type"] != "extra_forbidden":
        message = str(entry["msg"]).removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    nearest = difflib.get_close_matches(str(entry["loc"][-1]), _keys_beside(entry["loc"]), n=1, cutoff=0.0)
    return f"{where} is no key of mkiso; did you mean {'.'.join([*map(str, entry['loc'][:-1]), *nearest])}?"


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None:  # a publisher's name
            model = Publisher
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return list(model.model_fields)


def _absolute(settings: Settings, folder: Path) -> Settings:
    """Relative folders are relative to the configuration file: the processes of `mkiso serve` may be started from anywhere."""
    data_dir = (folder / settings.storage.data_dir).resolve()
    shared_dir = settings.storage.shared_dir and (folder / settings.storage.shared_dir).resolve()
    storage = settings.storage.model_copy(update={"data_dir": data_dir, "shared_dir": shared_dir})
    archive = settings.archive.model_copy(update={"directory": (data_dir / settings.archive.directory).resolve()})
    viewer = settings.viewer
    if viewer.directory:
        viewer = viewer.model_copy(update={"directory": str((folder / viewer.directory).resolve())})
    return settings.model_copy(update={"storage": storage, "archive": archive, "viewer": viewer})
