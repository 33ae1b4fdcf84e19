"""A Flower federation of real processes on this machine: a SuperLink, SuperNodes, and what they start."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SCRIPTS = sysconfig.get_path("scripts")
OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


class Federation:
    """Processes with a folder each; they and all they have started are killed when it ends, however it ends.

    Every wait ends with an AssertionError at the deadline, `limit` seconds from the beginning.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder = folder
        self.deadline = time.monotonic() + limit
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = free_ports()
        self.address = f"127.0.0.1:{next(self.ports)}"
        self.certificates = write_certificates(folder / "certificates")

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.running):
            self.kill(name)

    def start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a process in a folder of its name, which is also what it takes for Flower's home."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
        settings = {"PATH": path, "FLWR_HOME": str(folder), "OMP_NUM_THREADS": "1"}
        with (folder / "log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | OFFLINE | settings | {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.running[name]

    def start_link(self) -> None:
        """Start the SuperLink, and wait until it listens."""
        ca, certificate, key = self.certificates
        files = ["--ssl-ca-certfile", ca, "--ssl-certfile", certificate, "--ssl-keyfile", key]
        self.start("superlink", "flower-superlink", "--port", self.address.split(":")[1], *files)
        self.wait_for(lambda: reachable(self.address))

    def start_node(self, name: str, config: str) -> None:
        """Start a SuperNode."""
        ca, port = self.certificates[0], str(next(self.ports))
        at = ["--superlink", self.address, "--root-certificates", ca, "--port", port]
        self.start(name, "flower-supernode", *at, "--node-config", config)

    def start_run(self, app: Path, **config: str | float) -> subprocess.Popen[bytes]:
        """Start a run of an app; the process ends when the run does."""
        home = self.folder / "run"
        home.mkdir()
        link = f'[superlink.test]\naddress = "{self.address}"\nroot-certificates = "{self.certificates[0]}"\n'
        (home / "config.toml").write_text(link)
        (home / "run.toml").write_text("".join(f"{key} = {value!r}\n" for key, value in config.items()))
        return self.start("run", "flwr", "run", app, "test", "--stream", "--run-config", home / "run.toml")

    def kill(self, name: str) -> None:
        """Kill a process and all that it has started, at once."""
        process = self.running.pop(name)
        if process.poll() is None:
            for pid in [process.pid, *descendants(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait(timeout=10)

    def wait_for(self, condition: Callable[[], object], pause: float = 0.02) -> None:
        """Wait for something to become true, while all processes live."""
        while not condition():
            died = [name for name, process in self.running.items() if process.poll() is not None]
            assert not died, self.logs(f"{died} ended too early")
            assert time.monotonic() < self.deadline, self.logs("too late")
            time.sleep(pause)

    def logs(self, what: str) -> str:
        """What went wrong, and the ends of all logs."""
        found = sorted(self.folder.glob("*/log"))
        texts = [f"--- {path.parent.name}\n{path.read_text(errors='replace')[-3000:]}" for path in found]
        return "\n".join([what, *texts])


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs, whatever groups they are in."""
    children: list[int] = []
    with suppress(OSError):  # where it has ended
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, path.read_text().split())
    return children + [each for child in children for each in descendants(child)]


def free_ports() -> Iterator[int]:
    """Ports of this machine that nobody listens at, one after the other."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        yield port


def reachable(address: str) -> bool:
    host, port = address.split(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def write_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Write a CA's certificate, and a certificate of it for 127.0.0.1 with its key."""
    folder.mkdir()
    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name: str, key, signer, issuer: str, *extensions):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        path = folder / f"{name}.pem"
        path.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    key = folder / "key.pem"
    key.write_bytes(own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    identifier = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
    ca = certificate("ca", root, root, "ca", x509.BasicConstraints(ca=True, path_length=0), identifier)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    return ca, certificate("superlink", own, root, "ca", names, authority), key
