# SPDX-License-Identifier: Apache-2.0
"""Rows of the table about plugins that misbehave, addresses that nobody should reach, and secrets that nobody should read."""

import asyncio
import os
import subprocess
from pathlib import Path

import artefacts
import canaries
import ssrf
import stand
import traps

TIMES = {"fast": 1, "all": 20}
REQUESTS = {"fast": 2_000, "all": 20_000}
TRAP_P99_S_MAX = 0.05


def run(report, extent):
    """All of them."""
    broken_files(report, extent)
    breaking(report, extent)
    addressed(report, extent)
    planted(report, extent)


def broken_files(report, extent):
    """Bad plugin files."""
    good = artefacts.good_component(os.environ["PENSTOCK_PLUGINS"])
    with stand.Gateway(policy=artefacts.policy(), plugins=(), drop={"echo.wasm": good}) as gateway:
        before = gateway.resident_mib()
        campaign, (asked, wrong, connections, p99_ms), kinds = artefacts.run(gateway, good, extent, TIMES[extent])
        grown = gateway.resident_mib() - before
        figure = f"{kinds} kinds, {campaign.count} files, {len(campaign.wrong)} wrong verdicts"
        report.row("bad plugin files", figure, ">= 30 kinds, 0", kinds >= 30 and not campaign.wrong)
        for row in campaign.wrong[:8]:
            print("   ", row)
        limit = campaign.limit
        report.row("the slowest verdict", f"{campaign.slowest:.2f} s", f"<= {limit:.0f} s", campaign.slowest <= limit)
        limit = artefacts.BUSY_BOMB_S_MAX if extent == "fast" else artefacts.BOMB_S_MAX
        figure = f"{campaign.slowest_bomb:.2f} s for {artefacts.COMPILE_S} s of a processor"
        report.row("the slowest bomb", figure, f"<= {limit:.0f} s", campaign.slowest_bomb <= limit)
        figure = f"{len(wrong)} of {asked} failed, {connections} connections, p99 {p99_ms} ms"
        kept = connections == artefacts.CALLERS
        report.row("a caller of the old version meanwhile", figure, "0 failed", asked and not wrong and kept)
        report.row("bad plugin files: memory", f"{grown:+.0f} MiB", "<= 64", grown <= 64 and gateway.runs())
    signed(report, good)


def signed(report, good):
    """Files under a rule of trust."""
    with stand.tempfile.TemporaryDirectory() as folder:
        private, public = artefacts.key_pair(Path(folder))
        plugin = Path(folder) / "echo.wasm"
        plugin.write_bytes(good)
        sign = [os.environ["PENSTOCK_BIN"], "plugin", "sign", plugin, "--key", private]
        subprocess.run(sign, check=True, capture_output=True)
        content = plugin.read_bytes()
        policy = artefacts.policy(signed_by=public)
        with stand.Gateway(policy=policy, plugins=(), drop={"echo.wasm": content}) as gateway:
            campaign = artefacts.Campaign(gateway, content)
            artefacts.signatures(campaign, content, good)
            figure = f"{campaign.count} files, {len(campaign.wrong)} wrong verdicts"
            report.row("plugin files that are not trusted", figure, "0", campaign.count and not campaign.wrong)
            for row in campaign.wrong[:5]:
                print("   ", row)


def breaking(report, extent):
    """Plugins that break on some requests."""
    vendor = traps.Vendor()
    made = traps.components(Path(os.environ["PENSTOCK_TEST_PLUGINS"]))
    with stand.Gateway(policy=traps.POLICY, plugins=("token-bucket.wasm",), drop=made, origin=vendor.port) as gateway:
        tally = asyncio.run(traps.run(gateway.port, REQUESTS[extent]))
        operator = artefacts.Operator(gateway)
        told = {name: operator.ask("GET", f"/plugins/{name}")[1]["uses"][0] for name in made_names(made)}
        through, slowest, served = asyncio.run(traps.in_a_row(gateway.port))
        runs = gateway.runs()
    past, over = traps.bypasses(tally, vendor.end())
    fine, faulty = tally.count("fine"), sum(tally.count(kind) for kind in ("auth", "limits", "adapter"))
    figure = f"{fine - tally.count('fine', 200)} of {fine} failed"
    report.row("requests beside those that break plugins", figure, "0", fine and fine == tally.count("fine", 200))
    p99, most = (tally.percentile(("auth", "limits", "adapter"), share) for share in (0.99, 1))
    figure = (
        f"{faulty} requests, {len(tally.wrong)} wrong answers, p99 {p99 * 1000:.0f} ms, at most {most * 1000:.0f} ms"
    )
    met = not tally.wrong and p99 <= TRAP_P99_S_MAX
    report.row("requests that break plugins", figure, f"503 or 502, p99 <= {TRAP_P99_S_MAX * 1000:.0f} ms", met)
    for row in tally.wrong[:5]:
        print("   ", row)
    report.row("let past auth or a limit", f"{len(past)} past, {over} over the limit", "0 and 0", not past and not over)
    seen = [len(use["breaks"]) > 0 and use["breaks"][0]["stack"] and use["broken"] > 0 for use in told.values()]
    figure = ", ".join(f"{name} {use['broken']}" for name, use in told.items())
    report.row("what the operator sees of the breaks", figure, "counts and stacks of each", all(seen) and runs)
    figure = f"{through} let in, the last refused within {slowest * 1000:.0f} ms, then {'served' if served else 'not served'}"
    report.row("auth that breaks each time", figure, "0 let in, served after the rest", not through and served)


def made_names(files):
    """Names of plugins by their files."""
    return [name.removesuffix(".wasm") for name in files]


def addressed(report, extent):
    """Addresses in every place."""
    places = ssrf.Places()
    environment = {"TORTURE_VENDOR_KEY": ssrf.KEY}
    plugins = ("openai-compatible.wasm", "anthropic.wasm")
    with stand.Gateway(policy=ssrf.POLICY, plugins=plugins, origin=places.vendor, environment=environment) as gateway:
        counts, strange = asyncio.run(ssrf.run(gateway, places.canary, few=extent == "fast"))
    with stand.Gateway(
        policy=ssrf.narrow_policy(places.canary), plugins=plugins[:1], environment=environment
    ) as gateway:
        count, wrong, slowest = asyncio.run(ssrf.narrow(gateway))
    asked, heard, hears = places.end()
    elsewhere = [row for row in asked if row[1] and row[0] != f"127.0.0.1:{places.vendor}"]
    figure = f"{len(ssrf.addresses(1))} spellings at {len(counts)} points, {sum(counts.values())} requests: {len(heard)} hits"
    met = hears and not heard and not strange and len(counts) == 6
    report.row("addresses that nobody should reach", figure, "0 hits", met)
    for row in [*heard[:5], *strange]:
        print("   ", row)
    keys = sum(key for _, key in asked)
    figure = f"{len(elsewhere)} of {keys} requests with a key"
    report.row("keys for other authorities", figure, "0", keys and not elsewhere)
    figure = f"{count} base URLs, {len(wrong)} not refused, slowest {slowest:.1f} s"
    report.row("upstreams outside limits.upstream_addresses", figure, "0", not wrong)
    for row in wrong[:5]:
        print("   ", row)


def planted(report, extent):
    """Secrets in every place."""
    secrets, vendor, collector = canaries.planted(), canaries.Vendor(), canaries.Collector()
    with stand.tempfile.TemporaryDirectory() as folder:
        redis = canaries.Redis(Path(folder) / "redis", secrets["REDIS"])
        try:
            policy = canaries.POLICY % (canaries.REDIS if redis.is_there else "")
            environment = {**canaries.environment(secrets), "RUST_LOG": "trace"}
            started = stand.Gateway(
                policy=policy, plugins=canaries.PLUGINS, environment=environment, key=secrets["CALLER"],
                origin=vendor.port, grpc=collector.port, socket=redis.port,
            )  # fmt: skip
            with started as gateway:
                campaign = canaries.Campaign(gateway, secrets, collector, redis)
                campaign.plant()
                for _ in range(1 if extent == "fast" else 10):
                    campaign.ask(few=extent == "fast")
                campaign.compile(artefacts.good_component(os.environ["PENSTOCK_PLUGINS"]))
                campaign.look_around()
                quiet, cores = campaign.crash()
        finally:
            redis.close()
    leaks = campaign.leaks
    figure = f"{len(secrets) + 3} secrets, {campaign.counts['requests']} requests, {leaks.looked_at} places, {leaks.bytes >> 20} MiB: {len(leaks.found)} found"
    worked = vendor.got_key and collector.asked and campaign.counts["children"]
    report.row("planted secrets", figure, "0 found", not leaks.found and worked)
    for row in sorted(leaks.found)[:40]:
        print("   ", row)
    if not worked:
        print("    nothing was looked at:", vendor.got_key, collector.asked, campaign.counts)
    report.row("core files after SIGABRT", f"{len(cores)}", "0, and none allowed", quiet)
