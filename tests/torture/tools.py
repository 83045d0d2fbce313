# SPDX-License-Identifier: Apache-2.0
"""Other people's test suites against the gateway: h2spec, h1spec, Autobahn, testssl.sh, gRPC.

Their sources are taken from GitHub at fixed commits, or from the folder that PENSTOCK_TORTURE_SOURCES names (`owner+name/repo`, git
directories). What cannot be had here is left out, and said so.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

GO_PACKAGES = "golang-go golang-golang-x-net-dev golang-github-spf13-cobra-dev golang-github-fatih-color-dev"
SOURCES = {
    "summerwind/h2spec": "af83a65f0b6273ef38bf778d400d98892e7653d8",
    "uNetworking/h1spec": "f0a5650a20c575fbea0f7179a3a9cfa50f20ba6e",
    "nst/JSONTestSuite": "1ef36fa01286573e846ac449e8683f8833c5b26a",
    "minimaxir/big-list-of-naughty-strings": "db33ec7b1d5d9616a88c76394b7d0897bd0b97eb",
}
# What Autobahn's test suite runs on: Python 2.7 and these (its own requirements.txt).
AUTOBAHN = (
    "setuptools==44.0.0 txaio==2.1.0 incremental==16.10.1 Twisted==19.10.0 zope.interface==4.6.0 jinja2==2.11.3 "
    "markupsafe==1.1.1 Werkzeug==1.0.1 klein==17.10.0 pyopenssl==19.1.0 cryptography==3.3.2 service_identity==18.1.0 "
    "unittest2==1.1.0 six==1.16.0 autobahn==0.10.9"
)
# Cases of size and of compression: minutes, and nothing that a tunnel could change.
AUTOBAHN_LEFT_OUT = ["9.*", "12.*", "13.*"]
AUTOBAHN_AGAIN = 3


class Missing(Exception):
    """Why a tool cannot be had here."""


def folder():
    """Where tools are kept between runs."""
    path = Path(os.environ["PENSTOCK_TORTURE_TOOLS"])
    path.mkdir(parents=True, exist_ok=True)
    return path


def source(name):
    """The files of a repository at its fixed commit."""
    commit = SOURCES[name]
    path = folder() / name.replace("/", "+") / commit[:12]
    if path.is_dir():
        return path
    mirrors = os.environ.get("PENSTOCK_TORTURE_SOURCES")
    mirror = Path(mirrors) / name.replace("/", "+") / "repo" if mirrors else None
    if mirror and mirror.is_dir():
        git = ["git", "--git-dir", str(mirror)]
    else:
        clone = folder() / (name.replace("/", "+") + ".git")
        if not clone.is_dir():
            _run(
                ["git", "clone", "--quiet", "--bare", f"https://github.com/{name}", str(clone)],
                f"no {name} from GitHub",
            )
        git = ["git", "--git-dir", str(clone)]
    # Large parts that no test needs may be absent from a mirror.
    wanted = ["test_parsing"] if name == "nst/JSONTestSuite" else []
    made = path.with_suffix(".new")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    archive = _run([*git, "archive", ":".join([commit, *wanted])], f"{name} has no {commit}")
    _run(["tar", "x", "-C", str(made)], "tar", input=archive)
    made.rename(path)
    return path


def h2spec(port, over_tls):
    """Runs h2spec in strict mode; passed, all, and the names of what failed."""
    out = folder() / "h2spec.xml"
    command = [
        _h2spec(),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-S",
        "-P",
        "/a",
        "-j",
        out,
        *(["-t", "-k"] if over_tls else []),
    ]
    text = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
    found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", text)
    if not found:
        raise Missing(f"h2spec said nothing: {text[-300:]}")
    failed = re.findall(r"^ *× (.*)$", text[text.find("Failures:") :], re.MULTILINE)
    return int(found[2]), int(found[1]), failed


def _h2spec():
    binary = folder() / "h2spec"
    if binary.exists():
        return binary
    go = shutil.which("go") or next((str(path) for path in sorted(Path("/usr/lib").glob("go-*/bin/go"))), None)
    if go is None or not Path("/usr/share/gocode/src/golang.org/x/net").is_dir():
        raise Missing(f"no Go with its Debian packages (apt install {GO_PACKAGES} …)")
    code = folder() / "gopath/src/github.com/summerwind"
    code.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source("summerwind/h2spec"), code / "h2spec", dirs_exist_ok=True)
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": f"{folder()}/gopath:/usr/share/gocode",
        "GOCACHE": f"{folder()}/go",
    }
    _run(
        [go, "build", "-o", str(binary), "./cmd/h2spec"], "h2spec does not build", cwd=code / "h2spec", env=environment
    )
    return binary


def h1spec(port):
    """Runs h1spec; passed, all, and what failed."""
    if not shutil.which("npm"):
        raise Missing("no npm, which brings Deno")
    script = source("uNetworking/h1spec") / "http_test.ts"
    deno = folder() / "node_modules/deno"
    if not (deno / "installed").exists():
        _run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder()), "deno@2"],
            "npm cannot install deno",
        )
        _run(["node", "install.cjs"], "deno does not install", cwd=deno)
        (deno / "installed").touch()
    command = [str(folder() / "node_modules/.bin/deno"), "run", "--allow-net", str(script), "127.0.0.1", str(port)]
    environment = {**os.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    found = re.search(r"(\d+) out of (\d+) tests passed", done.stdout)
    if not found:
        raise Missing(f"h1spec said nothing: {done.stderr[-300:]}")
    failed = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("❌")]
    return int(found[1]), int(found[2]), failed


def autobahn(direct, through):
    """Runs the WebSocket cases against an echo server directly and through the gateway; how many, and which differ.

    Some cases depend on which of two frames is first, with the echo server alone, too: one that differs is run again, and differs if
    nothing that ever came of it through the gateway ever came of it directly.
    """
    seen = _autobahn(direct, through, ["*"])
    count, differ = len(seen["direct"]), _differing(seen)
    for _ in range(AUTOBAHN_AGAIN):
        if differ:
            again = _autobahn(direct, through, differ)
            for name, cases in again.items():
                for case, rows in cases.items():
                    seen[name].setdefault(case, set()).update(rows)
            differ = _differing(seen)
    return count, differ


def _differing(seen):
    return [case for case, rows in seen["direct"].items() if not rows & seen["through"].get(case, set())]


def _autobahn(direct, through, cases):
    out = folder() / "autobahn.out"
    shutil.rmtree(out, ignore_errors=True)
    urls = (("direct", direct), ("through", through))
    servers = [{"agent": name, "url": url, "options": {"version": 18}} for name, url in urls]
    wanted = {"cases": cases, "exclude-cases": AUTOBAHN_LEFT_OUT, "exclude-agent-cases": {}}
    spec = folder() / "autobahn.json"
    spec.write_text(json.dumps({"outdir": str(out), "servers": servers, **wanted}))
    _run([wstest(), "-m", "fuzzingclient", "-s", str(spec)], "Autobahn does not run", timeout=300)
    told = json.loads((out / "index.json").read_text())
    keys = ("behavior", "behaviorClose", "remoteCloseCode")
    return {name: {case: {tuple(row[key] for key in keys)} for case, row in told.get(name, {}).items()} for name, _ in urls}


def wstest():
    """Autobahn's program, in an environment of its own."""
    program = folder() / "autobahn/bin/wstest"
    if program.exists():
        return str(program)
    pyenv = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python"))
    # A pyenv may have a `python2.7` in the path that is none.
    python = str(pyenv[-1]) if pyenv else shutil.which("python2.7")
    if python is None:
        raise Missing("no Python 2.7, which Autobahn's test suite runs on")
    _run([python, "-m", "pip", "install", "--quiet", "virtualenv==20.15.1"], "no virtualenv for Python 2.7")
    _run([python, "-m", "virtualenv", "--quiet", str(folder() / "autobahn")], "no environment of Python 2.7")
    pip = str(folder() / "autobahn/bin/pip")
    _run([pip, "install", "--quiet", *AUTOBAHN.split()], "Autobahn does not install")
    _run([pip, "install", "--quiet", "--no-deps", "autobahntestsuite"], "Autobahn does not install")
    return str(program)


def testssl(port):
    """What testssl.sh holds against protocols, ciphers and known holes; the certificate is one for tests, and not judged."""
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if program is None:
        raise Missing("no testssl.sh (apt install testssl.sh)")
    out = folder() / "testssl.json"
    out.unlink(missing_ok=True)
    told = [
        "--quiet",
        "--ip",
        "one",
        "--color",
        "0",
        "--warnings",
        "off",
        "--jsonfile",
        str(out),
        "-p",
        "-U",
        "-s",
        "-f",
    ]
    subprocess.run([program, *told, f"127.0.0.1:{port}"], capture_output=True, timeout=300, check=False)
    findings = json.loads(out.read_text())
    return len(findings), [row["id"] for row in findings if row["severity"] not in ("OK", "INFO")]


def _run(command, why, timeout=600, **more):
    try:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, timeout=timeout, check=False, **more
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{why}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Missing(f"{why}: {said[-300:]}")
    return done.stdout
