# SPDX-License-Identifier: Apache-2.0
"""The black-box set: `run.py fast` is the part that fits into two minutes, `run.py all` the whole.

The environment says where the gateway (PENSTOCK_BIN), its plugins (PENSTOCK_PLUGINS), the corpus of attacks (PENSTOCK_ATTACKS) and the
tools (PENSTOCK_TORTURE_TOOLS) are. Prints one table; fails if a goal is missed.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import bodies
import changes
import contained
import floods
import origin
import paths
import slow
import smuggling
import stand
import tools
import trouble
from report import Report

PREFACE = b"PRI * HTTP/2.0"
GROWTH_MIB_MAX = 32
# Kept for the gateway, and not given back: what a large body has needed once.
BODY_GROWTH_MIB_MAX = 512
VERDICT_S_MAX = 5
MUTANTS = {"fast": 10_000, "all": 100_000}
CHANGES = {"fast": (5, 20), "all": (1_000, 500)}
UPGRADES, KILLS = {"fast": 3, "all": 100}, {"fast": 2, "all": 20}
FLOOD_S, FLOOD_CONNECTIONS = 10, 16
# Floods that are as large as the requests which they have under way: 100 for each connection.
REQUESTS_UNDER_WAY, REQUESTS_CONNECTIONS = ("zero window", "slow streams"), 4
SLOW_CLIENTS = 1_000


def main(extent):
    """Runs the set; the exit code."""
    report = Report()
    attacks = Path(os.environ.get("PENSTOCK_ATTACKS", ""))
    if (attacks / "corpus.json").is_file():
        asyncio.run(smuggled(report, attacks, MUTANTS[extent]))
    else:
        report.left_out("smuggling", f"no corpus.json in {attacks} (PENSTOCK_ATTACKS)")
    apart = origin.Apart()
    with stand.Gateway(origin=apart.port) as gateway:
        asyncio.run(spelled(report, gateway))
        asyncio.run(hostile_bodies(report, gateway, extent))
    with stand.Gateway(origin=apart.port, timeouts=slow.TIMEOUTS) as gateway:
        asyncio.run(stalled(report, gateway))
    for name in floods.ATTACKS if extent == "all" else ("rapid reset", "zero window"):
        flooded(report, apart, name, FLOOD_S if extent == "all" else 3)
    asyncio.run(changed(report, extent))
    if extent == "all":
        with stand.Gateway(origin=apart.port, timeouts=slow.TIMEOUTS) as gateway:
            asyncio.run(crowd(report, gateway))
        suites(report, apart)
    trouble.run(report, extent, apart.port)
    apart.close()
    contained.run(report, extent)
    report.print()
    return 1 if report.missed() else 0


async def changed(report, extent):
    """Plugins, policies, the process and the program change under load."""
    count, streams = CHANGES[extent]
    load, cut, resident = await changes.reloads(count, streams)
    asked = f"{load.asked} asked"
    report.row(
        f"{count} plugin and {count} policy reloads: requests",
        f"{asked}, {len(load.failures)} failed {load.failures[:3] or ''}",
        "0 failed",
        not load.failures and load.asked,
    )
    report.row(
        f"{count} plugin and {count} policy reloads: streams", f"{streams} held, {len(cut)} cut {cut[:1] or ''}", "0", not cut
    )
    if extent == "all":
        low, high = min(resident), max(resident)
        report.row("reloads: memory", f"{low:.0f} to {high:.0f} MiB", "+- 5 %", high <= low * 1.1)
    load, done = await changes.upgrades(UPGRADES[extent])
    report.row(
        f"{UPGRADES[extent]} upgrades of the program: requests",
        f"{done} done, {load.asked} asked, {len(load.failures)} failed {load.failures[:3] or ''}, slowest {load.slowest_s:.2f} s",
        "0 failed",
        not load.failures and done == UPGRADES[extent],
    )
    slowest, refused = await changes.kills(KILLS[extent])
    report.row(
        f"{KILLS[extent]} kills of the worker",
        f"back within {slowest:.2f} s, {refused} connections refused",
        "1 s, 0",
        slowest <= 1 and not refused,
    )


async def smuggled(report, attacks, mutants):
    """The corpus, and mutants of it."""
    judge = await origin.Origin().start()
    with stand.Gateway(origin=judge.port) as gateway:
        corpus = smuggling.payloads(attacks, gateway.port)
        http1 = [payload for payload in corpus if not payload.startswith(PREFACE)]
        prefaces = [payload for payload in corpus if payload.startswith(PREFACE)]
        for name, payloads, at_a_time, wait_s in (
            ("corpus", http1, 32, smuggling.WAIT_S),
            ("mutants", smuggling.mutants(http1, mutants, seed=7), 256, 0.6),
        ):
            tally, violations, left = await smuggling.run(gateway.port, judge, payloads, at_a_time, wait_s)
            figure = f"{tally.sent} sent, {len(violations)} violations, {len(left)} desyncs"
            report.row(f"smuggling, {name}", figure, "0 and 0", not violations and not left)
            for violation in violations[:5]:
                print("   ", violation)
            figure = f"{tally.victims_wrong} of {tally.victims}"
            report.row(f"smuggling, {name}: wrong answers to others", figure, "0", not tally.victims_wrong)
        # In HTTP/2 the numbers of the answers cannot be seen from without.
        _tally, violations, _left = await smuggling.run(gateway.port, judge, prefaces, 1)
        report.row("smuggling, HTTP/2 in the corpus", f"{len(violations)} violations", "0", not violations)
        report.row("the gateway after smuggling", "runs" if gateway.runs() else "has crashed", "runs", gateway.runs())


async def spelled(report, gateway):
    """Spellings of guarded paths."""
    for name, port in (("", gateway.port), (", admin API", gateway.admin_port)):
        count, through = await paths.run(port)
        report.row(f"spellings of paths and hosts{name}", f"{count} sent, {len(through)} let through", "0", not through)
        for request, answer in through[:5]:
            print("   ", repr(request), answer)


async def hostile_bodies(report, gateway, extent):
    """JSON and compressed bodies, and what the log makes of naughty strings."""
    count, wrong, slowest, grown = await bodies.run(gateway)
    report.row("hostile bodies", f"{count} sent, {len(wrong)} wrong verdicts", "0", not wrong)
    for row in wrong[:8]:
        print("   ", row)
    report.row("hostile bodies, slowest verdict", f"{slowest:.2f} s", f"<= {VERDICT_S_MAX} s", slowest <= VERDICT_S_MAX)
    report.row("hostile bodies, memory", f"{grown:.0f} MiB", f"<= {BODY_GROWTH_MIB_MAX}", grown <= BODY_GROWTH_MIB_MAX)
    try:
        count, wrong = await bodies.suite(gateway.port, tools.source("nst/JSONTestSuite"))
        report.row("JSONTestSuite", f"{count} files, {len(wrong)} wrong verdicts", "0", not wrong and count > 300)
        strings = json.loads((tools.source("minimaxir/big-list-of-naughty-strings") / "blns.json").read_text())
    except tools.Missing as why:
        report.left_out("JSONTestSuite, naughty strings", why)
        return
    strings = strings if extent == "all" else strings[::8]
    answered, lines, wrong = await bodies.log_lines(gateway, strings)
    figure = wrong or f"{answered} answers, {lines} lines"
    report.row(
        f"{len(strings)} naughty strings in every field: log lines",
        figure,
        "one JSON line each",
        not wrong and answered == lines,
    )


async def stalled(report, gateway):
    """Each kind of stalled client, with a client beside them that does not stall."""
    names = list(slow.STALLS)
    good = asyncio.create_task(floods.good(gateway.tls_port, 8))
    results = await asyncio.gather(
        *[slow.stall(gateway.port, gateway.tls_port, name) for name in names], slow.unread(gateway.port)
    )
    results, unread = results[:-1], results[-1]
    for name, (took, limit) in [*zip(names, results), ("answer not read", (unread, slow.WRITE_S))]:
        near = abs(took - limit) <= slow.LATE_S
        report.row(f"stalled: {name}", f"closed after {took:.1f} s", f"{limit} s +- {slow.LATE_S:.0f}", near)
    tally = await good
    report.row("stalled clients: errors of others", f"{tally['errors']} of {tally['asked']}", "0", not tally["errors"])


def flooded(report, apart, name, seconds):
    """One flood against a fresh gateway."""
    with stand.Gateway(origin=apart.port) as gateway:
        # What every connection needs once is no growth.
        asyncio.run(floods.good(gateway.tls_port, 1))
        connections = REQUESTS_CONNECTIONS if name in REQUESTS_UNDER_WAY else FLOOD_CONNECTIONS
        told = asyncio.run(floods.run(gateway, name, seconds, connections))
        figure = "+{grown_mib:.0f} MiB, {frames} frames, {errors} errors of {asked}, p99 {p99_ms} ms".format(**told)
        met = told["grown_mib"] <= GROWTH_MIB_MAX and not told["errors"] and told["asked"] and gateway.runs()
        report.row(f"flood: {name}, {connections} connections", figure, f"<= {GROWTH_MIB_MAX} MiB, 0 errors", met)


async def crowd(report, gateway):
    """Many stalled clients at a time."""
    before, begun = gateway.resident_mib(), time.monotonic()
    good = asyncio.create_task(floods.good(gateway.tls_port, 10))
    tasks = await slow.hold(gateway.port, gateway.tls_port, SLOW_CLIENTS)
    peak = before
    while time.monotonic() - begun < 10:
        await asyncio.sleep(0.2)
        peak = max(peak, gateway.resident_mib())
    tally = await good
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    kept = sum(isinstance(row, tuple) and row[0] == float("inf") for row in ended)
    failed = sum(not isinstance(row, tuple) for row in ended)
    grown, mib = peak - before, f"<= {GROWTH_MIB_MAX} MiB"
    report.row(f"{SLOW_CLIENTS} stalled clients: memory", f"+{grown:.0f} MiB", mib, grown <= GROWTH_MIB_MAX)
    figure = f"{kept} left open, {failed} not connected"
    report.row(f"{SLOW_CLIENTS} stalled clients: at their limits", figure, "0 and 0", not kept and not failed)
    report.row(
        f"{SLOW_CLIENTS} stalled clients: errors of others",
        f"{tally['errors']} of {tally['asked']}",
        "0",
        not tally["errors"],
    )


def suites(report, apart):
    """Other people's suites."""
    echo = free_port()
    try:
        import calls

        server, grpc = calls.serve()
    except ImportError as why:
        server, grpc = None, 1
        report.left_out("gRPC", why)
    with stand.Gateway(origin=apart.port, grpc=grpc, socket=echo) as gateway:
        for name, port, over_tls in (("TLS", gateway.tls_port, True), ("clear text", gateway.port, False)):
            judged(report, f"h2spec, {name}", 147, lambda port=port, over_tls=over_tls: tools.h2spec(port, over_tls))
        judged(report, "h1spec", 33, lambda: tools.h1spec(gateway.port))
        if server:
            direct, through = calls.outcomes(grpc), calls.outcomes(gateway.port)
            differ = [name for name in direct if direct[name] != through[name]]
            report.row("gRPC", f"{len(direct)} kinds of call, {len(differ)} differ {differ or ''}", "0", not differ)
            server.stop(0)
        tunnels(report, gateway, echo)
        try:
            count, found = tools.testssl(gateway.tls_port)
            report.row(
                "testssl.sh", f"{count} findings, {len(found)} not in order {found or ''}", "0", count and not found
            )
        except (tools.Missing, OSError, subprocess.TimeoutExpired) as why:
            report.left_out("testssl.sh", why)


def judged(report, name, goal, run):
    """A suite that says how many of its cases have passed."""
    try:
        passed, count, failed = run()
        report.row(name, f"{passed} of {count} passed {failed or ''}", f"{goal} of {goal}", passed == count == goal)
    except (tools.Missing, subprocess.TimeoutExpired) as why:
        report.left_out(name, why)


def tunnels(report, gateway, port):
    """Autobahn's WebSocket cases, directly and through the gateway."""
    try:
        command = [tools.wstest(), "-m", "echoserver", "-w", f"ws://127.0.0.1:{port}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as echo:
            try:
                await_port(port)
                direct, through = f"ws://127.0.0.1:{port}", f"ws://127.0.0.1:{gateway.port}/socket"
                count, differ = tools.autobahn(direct, through)
                report.row("Autobahn", f"{count} cases, {len(differ)} differ {differ or ''}", "0", count and not differ)
            finally:
                echo.kill()
    except tools.Missing as why:
        report.left_out("Autobahn", why)


def free_port():
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def await_port(port):
    """Waits until somebody listens."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
