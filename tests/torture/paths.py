# SPDX-License-Identifier: Apache-2.0
"""Ways to write a guarded path or a host: whoever shows no key gets to none of them, however it is spelled.

The origin that stands behind the open route and the guarded one is taken for the most lenient there is: it decodes, merges
slashes, drops parameters and resolves dots before it looks at a path.
"""

import asyncio
import itertools
import re
from urllib.parse import unquote

GUARDED = ("guarded", "v1")
AT_A_TIME = 32
SERVED = re.compile(rb"x-target: (\S+)")
SPELLINGS = [
    "/{g}/x", "/{g}", "/{g}/", "//{g}/x", "///{g}/x", "/./{g}/x", "/a/../{g}/x", "/%2e/{g}/x", "/a/%2e%2e/{g}/x",
    "/a/..;/{g}/x", "/a/..;x=1/{g}/x", "/{g};/x", "/{g};x=y/x", "/;/{g}/x", "/;a=b/{g}/x", "/%2f{g}/x", "/{g}%2fx",
    "/%2F{g}%2Fx", "/%5c{g}/x", "/\\{g}/x", "/{g}\\x", "/a/..%2f{g}/x", "/a%2f..%2f{g}/x", "/a/.%2e/{g}/x",
    "/{g}//x", "/{g}/./x", "/{g}/../{g}/x", "/{g}?", "/{g}/x?a", "/{g}#x", "/{g}/x#y", "/{g}%00/x", "/{g}%20/x",
    "/{g}%09", "/%25%32%66{g}", "/%252f{g}/x", "/{e}/x", "/{e2}/x", "/{e}", "//{e}/x", "/a/../{e}/x", "/{u}/x",
    "/{g}/%2e%2e/{g}/x", "/.//{g}/x", "/..//{g}/x", "/%2e%2e//{g}/x", "/a/b/../../{g}/x", "/a/..//{g}/x",
    "/%c0%af{g}/x", "/%ef%bc%8f{g}/x", "/{g}/..;/{g}/x", "/x/%2e%2e%2f{g}", "/{g}.", "/{g}..", "/{g}/.;/x", "/a;/../{g}/x",
    "http://{h}/{g}/x", "http://{h}//{g}/x", "HTTP://{h}/{g}/x", "http://{h}/a/../{g}/x", "http://other/{g}/x",
    "http://{h}@other/{g}/x", "http://other@{h}/{g}/x", "https://{h}/{g}/x", "*", "{g}/x", "{h}/{g}/x", "//{h}/{g}/x",
]  # fmt: skip
HOSTS = ["{h}", "{h}/", "{h}/{g}", "x/?", "{h}#", "{h}?", "{h}@x", "x@{h}", "{h}.", "LOCALHOST", "[::1]", "{h}:", "{h}, x",
         "{h}\tx", "127.1", "", " ", "{h}:99999", "%6cocalhost"]  # fmt: skip


def variants():
    """Requests without a key: name and bytes."""
    spelled = set()
    for guarded in GUARDED:
        first, rest = guarded[0], guarded[1:]
        words = {"g": guarded, "e": f"%{ord(first):02x}{rest}", "u": f"%{ord(first):02X}{rest}", "h": "localhost"}
        words["e2"] = "".join(f"%{ord(letter):02x}" for letter in guarded)
        for (spelling, host), method in itertools.product(_pairs(), ("GET", "POST")):
            target, host = spelling.format(**words), host.format(**words)
            spelled.add(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    return sorted(spelled)


def _pairs():
    for spelling in SPELLINGS:
        for host in HOSTS if spelling.startswith(("/{g}", "http://")) else HOSTS[:5]:
            yield spelling, host


def canonical(target):
    """The path as the most lenient origin reads it."""
    path = re.sub(r"^[a-zA-Z]+://[^/]*", "", target).split("?")[0].split("#")[0]
    for _ in range(3):
        path = unquote(path, errors="replace")
    kept = []
    for segment in path.replace("\\", "/").split("/"):
        segment = segment.split(";")[0].strip("\x00 \t")
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    return kept


async def run(port):
    """Sends every variant; how many there are, and those that reached something guarded."""
    waiting, through = iter(variants()), []

    async def ask():
        for request in waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request.encode("latin1"))
                answer = await asyncio.wait_for(reader.read(-1), 10)
            except (OSError, TimeoutError):
                answer = b""
            finally:
                writer.close()
            served = SERVED.search(answer)
            if served and canonical(served[1].decode())[:1] in ([name] for name in GUARDED):
                through.append((request, answer[:200]))
            elif not served and answer[9:10] == b"2":
                through.append((request, answer[:200]))

    await asyncio.gather(*[ask() for _ in range(AT_A_TIME)])
    return len(variants()), through
