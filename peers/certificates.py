"""Certificates that are valid for a day: an authority's, two that it signed, and one that nobody trusts. And a server
that shows one of them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_certificates(folder: Path, days_ago: int = 0) -> Path:
    """The folder, with ca.pem, own.pem, peer.pem (signed by the authority) and stranger.pem (signed by itself), each
    with its key in NAME.key; all are of 127.0.0.1, and were made so many days ago.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    for name in ("ca", "own", "peer", "stranger"):
        key = authority_key if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        issuer, signing_key = ("stranger", key) if name == "stranger" else ("ca", authority_key)
        now = datetime.now(UTC) - timedelta(days=days_ago)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(signing_key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )
    return folder


def showing(folder: Path, name: str) -> ssl.SSLContext:
    """What a server shows the certificate of this name with."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return tls


@contextmanager
def https_server(folder: Path, name: str) -> Iterator[int]:
    """A server that shows this certificate and knows nothing else; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = showing(folder, name).wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
