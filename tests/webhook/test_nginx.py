"""Debian's nginx with the project's files, the real webhook behind it: the old addresses, the key, ranges,
X-Accel-Redirect, the change-over.
"""

import http.server
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mkiso.storage.handover import hand_over
from mkiso.storage.shelf import manifests
from mkiso.study.question import Question
from mkiso_service.cli.client import Client, ServiceError
from mkiso_service.prefect.orchestrator import Standing
from peers.patience import LONG
from peers.ports import free_port
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.nginx import FILES, Nginx, certificate
from tests.webhook.pacs import with_pacs

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")]


class Php(http.server.BaseHTTPRequestHandler):
    """The old service: says what it was asked and which key it was shown."""

    def do_GET(self) -> None:
        told = f"php {self.path} key={self.headers.get('X-API-Key')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *args: object) -> None:
        pass


class Front(httpx.Client):
    """A client of nginx, and the store behind it. `accel`: nginx sends the bytes itself."""

    scripts: Scripts
    accel: bool


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk()


@pytest.fixture(scope="module", params=["streamed", "x-accel"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, desk: Desk) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("nginx")
    settings = settings_in(folder / "data", auth=True, accel_redirect="/_discs/" if request.param == "x-accel" else "")
    desk.anew(Scripts(settings.storage).done)
    (folder / "key.conf").write_text(f'proxy_set_header X-API-Key "{KEY}";\n')
    php = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Php)
    threading.Thread(target=php.serve_forever, daemon=True).start()
    replacements = {
        "127.0.0.1:8080": f"127.0.0.1:{settings.server.port}",
        "127.0.0.1:8081": f"127.0.0.1:{php.server_port}",
        "/etc/mkiso/nginx-key.conf": str(folder / "key.conf"),
        "/var/lib/mkiso/discs/": f"{settings.storage.discs_dir}/",
        "rate=20r/s": "rate=1000r/s",  # these tests are one client, and a quick machine sends all of them in seconds
    }
    try:
        with (
            with_pacs(settings, folder / "pacs", "J1", "J2") as settings,
            served(settings, desk),
            Nginx(folder, replacements) as nginx,
            Front(base_url=f"http://127.0.0.1:{nginx.port}", timeout=LONG, trust_env=False) as client,
        ):
            client.scripts = Scripts(settings.storage)
            client.accel = request.param == "x-accel"
            yield client
    finally:
        php.shutdown()
        php.server_close()


@pytest.mark.parametrize(
    ("old", "numbers", "kind"),
    [
        ("/mkiso.php?accession_number=A1", ("A1",), "download"),
        ("/mkiso2.php?accession_number=A1&_=17", ("A1",), "download"),
        ("/mkiso_multiple.php?accession_numbers=A1,B2", ("A1", "B2"), "download"),
        ("/send_rimage_multiple.php?accession_numbers=A1,B2", ("A1", "B2"), "print"),
        ("/send_rimage_multiple.php?accession_number=A1", ("A1",), "print"),
    ],
)
def test_the_old_addresses_need_no_key(front: Front, desk: Desk, old: str, numbers: tuple[str, ...], kind: str) -> None:
    for headers in ({}, {"X-API-Key": "the client's own"}):
        answer = front.get(old, headers=headers)
        assert answer.status_code == 200
        assert (desk.asked[-1].accession_numbers, desk.asked[-1].kind) == (numbers, kind)
        if kind == "download":
            assert len(answer.content) == int(answer.headers["content-length"]) == 37773
            assert answer.headers["content-type"] == "application/vnd.efi.iso"


def test_the_password_of_an_encrypted_disc_comes_through(front: Front, desk: Desk) -> None:
    """nginx passes on no header of ours where it sends the bytes itself, and the password is told once."""

    def encrypted(job_id: str, question: Question) -> Standing:
        hand_over(front.scripts.storage, job_id, question.seal, "11111-22222")
        return front.scripts.done(job_id, question)

    desk.script = encrypted
    try:
        answer = front.get(
            "/api/iso/download?accession_number=E1&format=zip-encrypted&password=header", headers={"X-API-Key": KEY}
        )
    finally:
        desk.script = front.scripts.done
    assert (answer.status_code, answer.headers.get("x-mkiso-password")) == (200, "11111-22222")
    assert len(answer.content) == 37773


def test_curl_takes_a_disc_and_goes_on_with_a_broken_one(front: Front, desk: Desk, tmp_path: Path) -> None:
    address = f"{front.base_url}mkiso.php?accession_number=C3".replace("mkiso.php", "/mkiso.php")
    whole = front.get("/mkiso.php?accession_number=C3")
    part = tmp_path / "disc.iso"
    subprocess.run(["curl", "-sS", "--fail", "-o", part, address], check=True)
    assert len(part.read_bytes()) == len(whole.content)
    disc = front.scripts.disc("123e4567-e89b-12d3-a456-426614174000", desk.asked[-1], content=bytes(range(256)) * 1000)

    def again(job_id: str, question: Question) -> Standing:
        front.scripts.report(job_id, question, status="done", disc_ids=(disc,))
        return "completed"

    desk.script = again
    part.write_bytes(b"")
    subprocess.run(["curl", "-sS", "--fail", "-r", "0-99999", "-o", part, address], check=True)
    # curl sends no If-Range: at the question's address, where another disc may be the answer by now, it is refused the
    # rest and says so.
    assert (
        subprocess.run(["curl", "-sS", "--fail", "-C", "-", "-o", part, address], stderr=subprocess.DEVNULL).returncode
        != 0
    )
    assert part.read_bytes() == (bytes(range(256)) * 1000)[:100_000]
    etag = front.get("/mkiso.php?accession_number=C3").headers["etag"]
    subprocess.run(["curl", "-sS", "--fail", "-H", f"If-Range: {etag}", "-C", "-", "-o", part, address], check=True)
    assert part.read_bytes() == bytes(range(256)) * 1000
    desk.script = front.scripts.done


def test_every_header_and_condition_comes_through(front: Front, desk: Desk) -> None:
    desk.script = lambda job_id, question: front.scripts.done(job_id, question, degraded=("patient_api",))
    answer = front.get("/mkiso_multiple.php?accession_numbers=D1,D2", headers={"X-Request-ID": "ward-1"})
    for name, value in {
        "x-mkiso-degraded": "patient_api",
        "accept-ranges": "bytes",
        "x-request-id": "ward-1",
        "cache-control": "private, no-store",
    }.items():
        assert answer.headers[name] == value, name
    assert "filename*=UTF-8''%E0%B8%AA" in answer.headers["content-disposition"]
    assert "last-modified" not in answer.headers and "x-accel-redirect" not in answer.headers
    assert len(answer.headers.get_list("etag")) == 1
    [old] = answer.headers.get_list("content-location")
    etag = answer.headers["etag"]
    assert old.startswith("/mkiso_job/") and front.get(old).headers["etag"] == etag  # needs no key either
    assert front.get(old).headers["content-location"] == old
    disc, key = old.replace("/mkiso_job/", "/api/iso/jobs/"), {"X-API-Key": KEY}
    assert front.get(disc).status_code == 401
    assert front.get(disc, headers=key).headers.get_list("content-location") == [disc]
    assert front.get(disc, headers={**key, "Range": "bytes=10-19", "If-Range": etag}).content == answer.content[10:20]
    assert front.get(disc, headers={**key, "Range": "bytes=10-19", "If-Range": '"x"'}).content == answer.content
    assert front.get(disc, headers={**key, "If-None-Match": etag}).status_code == 304
    assert front.get(disc, headers={**key, "If-Match": etag}).status_code == 200
    assert front.head(disc, headers=key).headers["content-length"] == "37773"
    assert front.get(disc, headers=key).headers["etag"] == etag
    desk.script = front.scripts.done


def test_nginx_sends_the_bytes_where_it_may(front: Front, desk: Desk) -> None:
    sent = _bytes_streamed(front)
    front.get("/mkiso.php?accession_number=H1")
    assert _bytes_streamed(front) - sent == (0 if front.accel else 37773)
    assert front.get("/_discs/").status_code == 404
    assert front.get("/_discs/x/disc.iso").status_code == 404


def test_a_disc_damaged_on_the_shelf_leaves_neither_from_nginx_nor_from_mkiso(
    front: Front, desk: Desk, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(3_000_000)
    desk.script = lambda job_id, question: front.scripts.done(job_id, question, content=content)
    asked = front.get("/mkiso.php?accession_number=DAMAGED1")
    address = asked.headers["content-location"].removeprefix("/mkiso_legacy")
    assert asked.content == content
    [disc] = [each for each in manifests(front.scripts.storage) if each.accession_numbers == ("DAMAGED1",)]
    image = front.scripts.storage.discs_dir / disc.disc_id / "disc.iso"
    image.write_bytes(content[:-10] + b"?" + content[-9:])
    told = tmp_path / "disc.iso"
    url = str(front.base_url).rstrip("/") + address
    command: list[str | Path] = ["curl", "-sS", "--fail", "-H", f"X-API-Key: {KEY}", "-o", told, url]
    curl = subprocess.run(command, stderr=subprocess.DEVNULL)
    assert curl.returncode == (22 if front.accel else 18)  # an HTTP error; a transfer that ended before its length
    assert not front.accel or not told.exists()
    assert front.get(address, headers={"X-API-Key": KEY}).status_code == 404
    assert disc.disc_id not in {each.disc_id for each in manifests(front.scripts.storage)}
    desk.script = front.scripts.done


def test_errors_come_through_as_they_are(front: Front, desk: Desk) -> None:
    assert front.get("/mkiso.php").json()["code"] == "invalid_request"
    assert front.get("/mkiso.php?accession_number=*").status_code == 400
    assert front.get("/api/iso/download?accession_number=A").status_code == 401
    assert front.get("/api/health").status_code == 200
    assert front.get("/nothing.php").json()["code"] == "not_found"
    assert front.get("/metrics").status_code == 200
    desk.script = front.scripts.set_of(2)
    page = front.get("/mkiso.php?accession_number=E1", headers={"Accept": "text/html"})
    assert page.status_code == 409
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="(\?accession_number=E1[^"]+)"', page.text)]
    discs = [front.get(f"/mkiso.php{link}", follow_redirects=True) for link in links]
    assert [disc.content for disc in discs] == [b"a1" * 50, b"a2" * 50]
    assert all(disc.url.path.startswith("/mkiso_job/") for disc in discs)  # where nginx adds the key
    desk.script = front.scripts.done


def test_a_script_at_an_old_address_gets_discs_of_one_set(front: Front, desk: Desk, tmp_path: Path) -> None:
    """It knows no key, asks for one part after the other, and the study grows in between."""

    def curl(query: str) -> tuple[int, bytes]:
        saved = tmp_path / "saved.iso"
        saved.unlink(missing_ok=True)
        url = f"{front.base_url.join('/mkiso_multiple.php')}?accession_numbers=S1,S2&{query}"
        done = subprocess.run(["curl", "-sS", "-L", "--fail", "-o", saved, url], stderr=subprocess.DEVNULL)
        return done.returncode, saved.read_bytes() if saved.exists() else b""

    desk.script = front.scripts.set_of(2, "a")
    assert curl("part=1") == (0, b"a1" * 50)
    desk.script = front.scripts.set_of(2, "b")
    assert curl("part=2") == (22, b"")
    desk.script = front.scripts.again
    told = front.get("/mkiso_multiple.php?accession_numbers=S1,S2").json()
    assert [curl(f"part={number}&set={told['set']}") for number in (1, 2)] == [(0, b"b1" * 50), (0, b"b2" * 50)]
    desk.script = front.scripts.done


def test_headers_and_paths_play_no_tricks(front: Front, desk: Desk) -> None:
    for path in (
        "/mkiso.php/../api/iso/jobs/x",
        "/mkiso.php%2f..%2fapi%2fiso%2fdownload",
        "/x/..;/mkiso.php",
        "/%6dkiso.php%00",
        "/mkiso.php%0A?accession_number=A1",
        "/mkiso_job/0-0%0A",
    ):
        assert front.get(path).status_code in (400, 401, 404)
    assert front.get("/api/iso/jobs/x", headers={"X_API_Key": KEY}).status_code == 401
    ours = front.get("/mkiso.php?accession_number=F1", headers={"X-Forwarded-For": "6.6.6.6", "X-Mkiso-Accel": "0"})
    assert len(ours.content) == 37773


def test_a_link_to_the_old_print_page_prints_by_the_button_alone(front: Front, desk: Desk) -> None:
    desk.asked.clear()
    old = "/send_rimage_multiple.php?accession_numbers=J1,J2"
    browser = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}
    link = {"Sec-Fetch-Site": "cross-site", **browser}
    for image in (
        {**link, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site"},
        {"Accept-Language": "en"},
        {"Accept-Language": "en", "Referer": "http://ward.example/"},
    ):
        assert front.get(old, headers=image).status_code == 403
    page = front.get(old, headers=link)
    action = re.findall(r'action="([^"]+)"', page.text)[0].replace("&amp;", "&")
    assert page.status_code == 200 and front.get("/page/counter.css").status_code == 200 and desk.asked == []

    pressed = front.post(f"/send_rimage_multiple.php{action}", headers={**link, "Sec-Fetch-Site": "same-origin"})
    assert [question.accession_numbers for question in desk.asked] == [("J1", "J2")]
    assert pressed.status_code == 303 and pressed.headers["location"].startswith("/mkiso_job/")
    for _ in range(2):  # loaded again
        told = front.get(pressed.headers["location"], headers={**link, "Sec-Fetch-Site": "same-origin"})
        assert told.status_code == 200 and "rimage has the order" in told.text
    assert len(desk.asked) == 1
    for tricks in ("x", "../download", "%2e%2e/download", "0-0/../../download", "0-0/disc/x"):
        assert front.get(f"/mkiso_job/{tricks}?accession_number=A1").status_code in (401, 404)


def test_a_disc_can_be_had_where_an_old_address_leads_to(front: Front, desk: Desk) -> None:
    waiting = front.get("/mkiso.php?accession_number=K1", headers={"Prefer": "respond-async"})
    assert waiting.status_code == 202 and waiting.headers["location"].startswith("/mkiso_job/")
    page = front.get(waiting.headers["location"], headers={"Accept": "text/html"})
    link = re.findall(r'href="([^"]+/disc\?part=1)"', page.text)[0]
    assert len(front.get(str(page.url.join(link))).content) == 37773


def test_what_a_jobs_page_offers_can_be_had_where_an_old_address_leads_to(front: Front, desk: Desk) -> None:
    """A browser that asked by an old link gets the letter, and the password of an encrypted disc."""
    waiting = front.get("/mkiso.php?accession_number=L1", headers={"Prefer": "respond-async"})
    page = front.get(waiting.headers["location"], headers={"Accept": "text/html"})
    [link] = re.findall(r'href="([^"]+/letter.pdf)"', page.text)
    assert front.get(str(page.url.join(link))).content.startswith(b"%PDF")

    def encrypted(job_id: str, question: Question) -> Standing:
        hand_over(front.scripts.storage, job_id, question.seal, "11111-22222")
        return front.scripts.done(job_id, question)

    desk.script = encrypted
    browser = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}
    try:
        led = front.get("/mkiso.php?accession_number=L2&format=zip-encrypted", headers=browser)
    finally:
        desk.script = front.scripts.done
    assert (
        led.status_code == 303
        and f"path={led.headers['location'].partition('?')[0]}" in led.headers["set-cookie"].lower()
    )
    page = front.get(led.headers["location"], headers=browser)
    [action] = re.findall(r'action="([^"]+/password)"', page.text)
    assert "11111-22222" in front.post(str(page.url.join(action)), headers=browser).text
    front.cookies.clear()


def test_the_longest_header_that_nginx_lets_through_is_read_at_once(front: Front, desk: Desk) -> None:
    for prefer in ("a=" + " " * 35_000 + '"', "," * 35_000, 'a="' + "b" * 35_000):
        assert front.get("/mkiso.php?accession_number=A1", headers={"Prefer": prefer}, timeout=20).status_code == 200
    assert front.get("/mkiso.php?accession_number=A1", headers={"Prefer": "x" * 40_000}).status_code in (400, 414, 494)


def test_the_change_over_side_by_side(front: Front) -> None:
    answer = front.get("/mkiso.php?accession_number=A&mkiso_side=php", headers={"X-API-Key": "x"})
    assert answer.text == "php /mkiso.php?accession_number=A&mkiso_side=php key=None"
    assert len(front.get("/mkiso.php?accession_number=A&mkiso_side=mkiso").content) == 37773


def test_after_the_change_over_php_is_taken_out_as_its_page_says(tmp_path: Path) -> None:
    """Without changeover.conf alone nginx didn't start any more."""
    page = (FILES.parents[1] / "docs" / "changeover.md").read_text()
    [commands] = re.findall(r"```\n(sed .*?)nginx -t", page, re.DOTALL)
    (tmp_path / "key.conf").write_text('proxy_set_header X-API-Key "";\n')
    settings = settings_in(tmp_path / "data")
    replacements = {
        "/etc/mkiso/nginx-key.conf": str(tmp_path / "key.conf"),
        "127.0.0.1:8080": f"127.0.0.1:{settings.server.port}",
    }
    nginx = Nginx(tmp_path, replacements)
    subprocess.run(["sh", "-ec", commands.replace("/etc/nginx/", f"{tmp_path}/")], check=True)
    assert "mkiso_php" not in "".join(file.read_text() for file in (tmp_path / "mkiso").iterdir())
    with served(settings, Desk(Scripts(settings.storage).done)), nginx:
        old = f"http://127.0.0.1:{nginx.port}/mkiso.php?accession_number=A1&mkiso_side=php"
        assert httpx.get(old, trust_env=False, timeout=LONG).headers["content-type"] == "application/vnd.efi.iso"


def test_one_client_that_asks_without_end_is_told_429(tmp_path: Path) -> None:
    (tmp_path / "key.conf").write_text('proxy_set_header X-API-Key "";\n')
    settings = settings_in(tmp_path / "data")
    replacements = {
        "/etc/mkiso/nginx-key.conf": str(tmp_path / "key.conf"),
        "127.0.0.1:8080": f"127.0.0.1:{settings.server.port}",
        "rate=20r/s": "rate=1r/m",  # a slow machine reaches it, too
    }
    with (
        served(settings, Desk()),
        Nginx(tmp_path, replacements) as nginx,
        httpx.Client(base_url=f"http://127.0.0.1:{nginx.port}", timeout=LONG, trust_env=False) as client,
    ):
        told = [client.get("/api/iso/jobs/x").status_code for _ in range(70)]
    assert told[:61] == [404] * 61 and 429 in told[61:]


def test_every_answer_over_tls_has_hsts_from_mkiso_and_from_nginx(tmp_path: Path, desk: Desk) -> None:
    certificate(tmp_path)
    (tmp_path / "key.conf").write_text('proxy_set_header X-API-Key "";\n')
    secure, alias = free_port(), tmp_path / "alias"
    settings = settings_in(tmp_path / "data", accel_redirect="/_discs/")
    alias.symlink_to(settings.storage.discs_dir)
    desk.anew(Scripts(settings.storage).done)
    replacements = {
        "/etc/mkiso/nginx-key.conf": str(tmp_path / "key.conf"),
        "/etc/nginx/tls/": f"{tmp_path}/",
        "# include mkiso/tls.conf;": "include mkiso/tls.conf;",
        "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
        "listen [::]:443 ssl;": "",
        "/var/lib/mkiso/discs/": f"{alias}/",
    }
    with (
        with_pacs(settings, tmp_path / "pacs", "J1") as settings,
        served(settings, desk),
        Nginx(tmp_path, {**replacements, "127.0.0.1:8080": f"127.0.0.1:{settings.server.port}"}) as nginx,
        httpx.Client(base_url=f"https://127.0.0.1:{secure}", verify=False, trust_env=False, timeout=LONG) as client,
    ):
        by_nginx = client.get("/mkiso.php?accession_number=A1")
        alias.unlink()
        answers = [by_nginx, client.get("/"), client.get("/_discs/x"), client.get(by_nginx.headers["content-location"])]
        plain = httpx.get(f"http://127.0.0.1:{nginx.port}/", trust_env=False, timeout=LONG)
    assert [answer.status_code for answer in answers] == [200, 200, 404, 500]
    assert [answer.headers.get_list("strict-transport-security") for answer in answers] == [["max-age=31536000"]] * 4
    assert plain.status_code == 200 and "strict-transport-security" not in plain.headers  # RFC 6797 7.2


def test_what_nginx_sends_has_the_headers_of_what_mkiso_sends(front: Front, desk: Desk) -> None:
    desk.script = lambda job_id, question: front.scripts.done(job_id, question, degraded=("patient_api",))
    old, told = front.get("/mkiso.php?accession_number=D3").headers["content-location"], {"X-Request-ID": "ward-2"}
    sent = _bytes_streamed(front, "/api/iso/jobs/{job_id}/disc")
    ours = front.get(old, headers={**told, "If-None-Match": '"another"'})
    assert _bytes_streamed(front, "/api/iso/jobs/{job_id}/disc") - sent == 37773
    theirs = front.get(old, headers=told)
    for answer in (ours, theirs):
        del answer.headers["date"]
    assert sorted(theirs.headers.multi_items()) == sorted(ours.headers.multi_items())
    desk.script = front.scripts.done


def test_nginx_that_cant_read_the_disc_says_so_in_mkisos_words(tmp_path: Path, desk: Desk) -> None:
    """An alias that leads elsewhere: to somebody with a browser or a script nginx's own page says nothing."""
    settings = settings_in(tmp_path / "data", accel_redirect="/_discs/")
    desk.anew(Scripts(settings.storage).done)
    (tmp_path / "key.conf").write_text('proxy_set_header X-API-Key "";\n')
    (tmp_path / "elsewhere").mkdir()
    replacements = {
        "/etc/mkiso/nginx-key.conf": str(tmp_path / "key.conf"),
        "/var/lib/mkiso/discs/": f"{tmp_path}/elsewhere/",
    }
    with (
        with_pacs(settings, tmp_path / "pacs", "J1") as settings,
        served(settings, desk),
        Nginx(tmp_path, {**replacements, "127.0.0.1:8080": f"127.0.0.1:{settings.server.port}"}) as nginx,
        httpx.Client(base_url=f"http://127.0.0.1:{nginx.port}", timeout=LONG, trust_env=False) as client,
    ):
        answer = client.get("/mkiso.php?accession_number=A1")
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
        told = answer.json()
        assert told["code"] == "configuration" and "the alias in x-accel.conf" in told["error"]
        assert told["request_id"] == answer.headers["x-request-id"]
        assert client.get("/_discs/x/disc.iso").status_code == 404


def _bytes_streamed(front: Front, route: str = "/api/iso/download") -> float:
    """What the webhook itself has sent of discs, by its own count."""
    name = re.escape(f'mkiso_http_response_bytes_total{{route="{route}"}} ')
    line = re.search(rf"{name}(\S+)", front.get("/metrics").text)
    return float(line[1]) if line else 0.0


def test_while_mkiso_is_away_nginx_says_so_to_people_and_to_programs(tmp_path: Path) -> None:
    away = {"127.0.0.1:8080": f"127.0.0.1:{free_port()}", "include /etc/mkiso/nginx-key.conf;": ""}
    with Nginx(tmp_path, away) as nginx:
        url = f"http://127.0.0.1:{nginx.port}"
        for path in ("/", "/mkiso.php?accession_number=A1"):
            page = httpx.get(url + path, headers={"Accept": "text/html,*/*"})
            assert page.status_code == 502 and "try again" in page.text
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        with Client(url) as client, pytest.raises(ServiceError) as raised:
            client.jobs()
    assert raised.value.code == "unreachable"  # for which a command that watches its job waits


def test_no_log_has_a_query_or_a_referrer_in_it(tmp_path: Path) -> None:
    """Whether the webhook answers, is away or is asked too often: the search has a patient in its query."""
    away = f"127.0.0.1:{free_port()}"
    replacements = {"burst=60": "burst=1", "127.0.0.1:8080": away, "include /etc/mkiso/nginx-key.conf;": ""}
    path, patient = "/api/studies", "?patient_name=DOE%5EJOHN&birth_date=1970-01-02"
    with (
        Nginx(tmp_path, replacements) as nginx,
        httpx.Client(base_url=f"http://127.0.0.1:{nginx.port}", timeout=LONG) as client,
    ):
        headers = {"Referer": f"{client.base_url}{path}{patient}"}
        told = {client.get(f"{path}{patient}", headers=headers).status_code for _ in range(20)}
    assert told == {502, 429}
    logs = {file.name: file.read_text() for file in tmp_path.glob("*.log")}
    assert {"mkiso.log", "mkiso.error.log"} <= logs.keys()
    lines = logs["mkiso.log"].splitlines()
    assert len(lines) == 20 and all(f'"GET {path} HTTP/1.1" ' in line for line in lines)
    assert any(" 502 " in line for line in lines) and any(" 429 " in line for line in lines)
    assert not [name for name, text in logs.items() if "DOE" in text or "1970-01" in text]
