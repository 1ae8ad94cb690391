from collections.abc import Iterator

import httpx
import pytest

from mkiso.config.settings import Settings
from tests.webhook.desk import Desk, Scripts, served, settings_in


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_in(tmp_path_factory.mktemp("open"), request_timeout_seconds=1)


@pytest.fixture(scope="module")
def shared_desk() -> Desk:
    return Desk()


@pytest.fixture(scope="module")
def running(settings: Settings, shared_desk: Desk) -> Iterator[httpx.Client]:
    with served(settings, shared_desk) as client:
        yield client


@pytest.fixture
def scripts(settings: Settings) -> Scripts:
    return Scripts(settings.storage)


@pytest.fixture
def desk(shared_desk: Desk, settings: Settings, scripts: Scripts) -> Desk:
    """The desk as new, and an empty store."""
    for file in [*settings.storage.discs_dir.rglob("*")]:
        if file.is_file():
            file.unlink()
    for folder in settings.storage.discs_dir.iterdir():
        folder.rmdir()
    shared_desk.anew(scripts.done)
    return shared_desk


@pytest.fixture
def client(running: httpx.Client, desk: Desk) -> httpx.Client:
    return running
