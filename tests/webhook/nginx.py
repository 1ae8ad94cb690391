"""Debian's nginx with the project's files, and a certificate for it."""

import subprocess
from pathlib import Path

from peers.ports import free_port
from peers.process import Process

FILES = Path(__file__).parents[2] / "deployments" / "nginx"


class Nginx(Process):
    """nginx in the foreground with a folder of its own."""

    def __init__(self, folder: Path, replacements: dict[str, str]) -> None:
        port = free_port()
        mine = folder / "mkiso"
        mine.mkdir()
        for file in FILES.glob("*.conf"):
            text = file.read_text()
            places = {"listen 80;": f"listen 127.0.0.1:{port};", "/var/log/nginx/": f"{folder}/"}
            for old, new in {**places, **replacements}.items():
                text = text.replace(old, new)
            (mine / file.name).write_text(text)
        main = folder / "nginx.conf"
        main.write_text(
            f"user root; worker_processes 1; daemon off; pid {folder}/pid; error_log stderr info;\nevents {{}}\nhttp "
            f"{{\n"
            + "".join(
                f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + "access_log off;\ninclude mkiso/mkiso.conf;\n}\n"
        )
        super().__init__(["nginx", "-p", str(folder), "-c", str(main)], folder / "nginx.log", port=port)


def certificate(folder: Path) -> None:
    """Writes key.pem and certificate.pem of localhost, signed by itself."""
    kind = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(["openssl", "req", "-x509", *kind, *files], check=True, capture_output=True)
