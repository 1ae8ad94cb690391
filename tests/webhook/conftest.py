import pytest

from tests.webhook.desk import Desk, Scripts, served, settings_in


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return settings_in(tmp_path_factory.mktemp("open"), request_timeout_seconds=1)


@pytest.fixture(scope="module")
def shared_desk():
    return Desk()


@pytest.fixture(scope="module")
def running(settings, shared_desk):
    with served(settings, shared_desk) as client:
        yield client


@pytest.fixture
def scripts(settings):
    return Scripts(settings.storage)


@pytest.fixture
def desk(shared_desk, settings, scripts):
    """The desk as new, and an empty store."""
    for file in [*settings.storage.discs_dir.rglob("*")]:
        if file.is_file():
            file.unlink()
    for folder in settings.storage.discs_dir.iterdir():
        folder.rmdir()
    shared_desk.__init__(scripts.done)
    return shared_desk


@pytest.fixture
def client(running, desk):
    return running
