"""oidc-provider from npm on a free port of this machine, installed where it isn't yet (peers/openid)."""

from __future__ import annotations

import fcntl
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from joserfc.jwk import RSAKey

from peers.ports import free_port
from peers.process import Process

FOLDER = Path(__file__).parent / "openid"
OLDEST_NODE = 20
"""The oldest major version of Node.js that the provider runs on. Where the machine has an older one, as on Debian 12,
that of peers/openid/newer is installed.
"""
SECRET = "of a test, and long enough: +/%"


class OpenIdProvider(Process):
    """`clara` is a clerk, `otto` an operator, `ada` an administrator; anybody else has no role.

    To a browser `localhost` is another site than 127.0.0.1, and two ports of one host are the same site.
    """

    def __init__(self, folder: Path, public_url: str, *, port: int = 0, host: str = "127.0.0.1") -> None:
        node = _installed()
        self.keys = folder / "provider.jwks"
        self.issuer_port = port or free_port()
        self.issuer = f"http://{host}:{self.issuer_port}"
        self.new_keys("first")
        arguments = [self.issuer, f"{public_url}/session/callback", f"{public_url}/", str(self.keys)]
        command = [node, str(FOLDER / "provider.mjs"), *arguments]
        super().__init__(command, folder / "provider.log", port=self.issuer_port)

    def new_keys(self, kid: str) -> None:
        """What it signs with from its next start on."""
        key: dict[str, Any] = {**RSAKey.generate_key(2048).as_dict(private=True), "kid": kid, "use": "sig"}
        self.keys.write_text(json.dumps({"keys": [key]}))


def _installed() -> str:
    """Install the provider once, and Node.js where the machine's is too old; the Node.js to start it with.

    The two package-lock.json say which versions, and by which hashes npm takes them.
    """
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
            subprocess.run(install, cwd=FOLDER, check=True)
        told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
        if int(told.strip("v").split(".")[0]) >= OLDEST_NODE:
            return "node"
        package = f"node-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}"
        place = FOLDER / "newer"
        if not (node := place / "node_modules" / package / "bin" / "node").exists():
            subprocess.run(install, cwd=place, check=True)
        return str(node)
