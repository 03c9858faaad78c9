"""Helper of ci/compare-etcd: talks to the nodes over HTTP, times failovers, prints the table. Standard library only.

Each command but `ready`, `leader` and `table` prints one line of JSON, a result; `table` reads them all from standard
input. What differs between the two systems is the table SYSTEMS and nothing else.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time

PROBE_SECONDS = 0.01  # between two probes of the same survivor
FAILOVER_SECONDS_MAX = 30
READY_SECONDS_MAX = 40
ANSWER_SECONDS_MAX = 15  # longer than either system lets a write wait for a leader


def etcd_put(key, value):
    """Method, path and body of a write through etcd's JSON gateway."""
    body = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
    return "POST", "/v3/kv/put", json.dumps(body)


def etcd_leads(answer, _port):
    """True when the member that gave this answer leads."""
    return "leader" in answer and answer["leader"] == answer["header"]["member_id"]


def seaworthy_put(key, value):
    """Method, path and body of a write to Seaworthy."""
    return "PUT", f"/v1/kv/{key}", value


def seaworthy_leads(answer, port):
    """True when the answer names the node at `port` as the leader."""
    return answer.get("leader", "").endswith(f":{port}")


# How to write, how to ask who leads, how to understand the answer.
SYSTEMS = {
    "etcd": (etcd_put, ("POST", "/v3/maintenance/status", "{}"), etcd_leads),
    "seaworthy": (seaworthy_put, ("GET", "/cluster/leader", ""), seaworthy_leads),
}


async def exchange(port, method, path, body):
    """One request over a new connection: status and body; status 0 when there is no answer."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write((head + body).encode())
        answer = await asyncio.wait_for(reader.read(), ANSWER_SECONDS_MAX)
        head, _, rest = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        return status, unchunked(head, rest)
    except (OSError, asyncio.TimeoutError, IndexError, ValueError):
        return 0, b""
    finally:
        if writer:
            writer.close()


def unchunked(head, body):
    """The body without the marks of chunked transfer."""
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


async def ready(args):
    """Ends when every node has taken a write; exit 1 when one does not in time."""
    put, end = SYSTEMS[args.system][0], time.monotonic() + READY_SECONDS_MAX
    for port in args.ports:
        while (await exchange(port, *put("compare-ready", "x")))[0] not in (200, 201):
            if time.monotonic() > end:
                sys.exit(f"compare-etcd: the node at port {port} takes no write")
            await asyncio.sleep(0.1)


async def leader(args):
    """Prints the number of the node that leads."""
    _, question, leads = SYSTEMS[args.system]
    for _ in range(100):
        for number, port in enumerate(args.ports):
            status, body = await exchange(port, *question)
            if status == 200 and leads(json.loads(body), port):
                print(number)
                return
        await asyncio.sleep(0.1)
    sys.exit("compare-etcd: no node says that it leads")


async def failover(args):
    """Kills the victim and times the first write, begun after the kill, that a survivor accepts."""
    put = SYSTEMS[args.system][0]
    survivors = [port for number, port in enumerate(args.ports) if number != args.victim]
    accepted = asyncio.get_running_loop().create_future()
    os.kill(args.pids[args.victim], signal.SIGKILL)
    killed, probes = time.monotonic(), []

    async def probe(port, number):
        status, _ = await exchange(port, *put(f"compare-failover-{number}", "x"))
        if status in (200, 201) and not accepted.done():
            accepted.set_result((time.monotonic() - killed) * 1000)

    while not accepted.done():
        if time.monotonic() - killed > FAILOVER_SECONDS_MAX:
            sys.exit(f"compare-etcd: no write within {FAILOVER_SECONDS_MAX} s of the kill")
        # Probes overlap: one that waits inside a node for a leader must not hide that the other node has found one.
        probes += [asyncio.create_task(probe(port, len(probes) + at)) for at, port in enumerate(survivors)]
        await asyncio.sleep(PROBE_SECONDS)
    for task in probes:
        task.cancel()
    result(args.system, "failover", ms=round(accepted.result(), 1))


def result(system, what, **fields):
    print(json.dumps({"system": system, "what": what, **fields}))


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def footprint(args):
    """Memory of the nodes, and their CPU over --seconds, when nobody uses them."""
    before = sum(map(cpu_seconds, args.pids))
    time.sleep(args.seconds)
    cpu = (sum(map(cpu_seconds, args.pids)) - before) / args.seconds * 100 if args.seconds else None
    memory = sum(map(rss_mb, args.pids)) / len(args.pids)
    result(args.system, args.command, rss_mb=round(memory, 1), cpu_percent=cpu and round(cpu, 2))


def fdatasync_us(directory):
    """Median times of a synced 4 KiB write at the end of a file and over old bytes, microseconds.

    They differ: growing a file costs a commit of the file system's journal. On busy cores both also hold the wait for a
    core, up to a tick of the scheduler (4 ms at 250 Hz), so thousands of microseconds speak of load, not of the disk.
    """
    path, medians = os.path.join(directory, "syncs"), []
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    for _ in range(2):
        os.lseek(file, 0, os.SEEK_SET)
        times = []
        for _ in range(200):
            start = time.monotonic()
            os.write(file, b"x" * 4096)
            os.fdatasync(file)
            times.append(time.monotonic() - start)
        medians.append(statistics.median(times) * 1e6)
    os.close(file)
    os.remove(path)
    return medians


def machine(args):
    """What it runs on, in words."""
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    mount = subprocess.run(["findmnt", "-n", "-o", "SOURCE,FSTYPE", "-T", args.dir], capture_output=True, text=True)
    note(f"machine: {model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}")
    disk = " ".join(mount.stdout.split()) or "unknown"
    append, over = fdatasync_us(args.dir)
    note(f"disk: {disk}; 4 KiB + fdatasync, medians: {append:.0f} us appended, {over:.0f} us overwritten")
    load = os.getloadavg()[0]
    doubt = "; other programs are running, so trust ratios at most" if load > os.cpu_count() / 2 else ""
    note(f"load average before the start: {load:.1f}{doubt}")


def note(text):
    print(json.dumps({"note": text}))


def better(ratio):
    """How many times better Seaworthy is, for people."""
    return "" if ratio is None else f"{ratio:.2f} x"


def best(rows, system, op, clients):
    """The run of this load with the highest throughput, of the routes tried."""
    runs = [row for row in rows if (row.get("system"), row.get("what"), row.get("clients")) == (system, op, clients)]
    return max(runs, key=lambda row: row["throughput_per_s"], default=None)


def cells(run):
    if run is None:
        return ["-"] * 4
    latency = " / ".join(f"{run[name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms"))
    cpu = run.get("cpu_us_per_op")
    errors = f" ({run['errors']} errors)" if run["errors"] else ""
    return [f"{run['throughput_per_s']:,.0f}{errors}", latency, f"{cpu:.0f}" if cpu else "-", run["route"]]


def load_rows(rows):
    for op in ("put", "get"):
        for clients in sorted({row["clients"] for row in rows if row.get("what") == op}):
            etcd, ours = (best(rows, system, op, clients) for system in SYSTEMS)
            ratio = etcd and ours and etcd["throughput_per_s"] and ours["throughput_per_s"] / etcd["throughput_per_s"]
            what = "put" if op == "put" else "linearizable get"
            many = "1 client" if clients == 1 else f"{clients:,} clients"
            yield [f"{what}, {many}", *cells(etcd), *cells(ours), better(ratio)]


def single_rows(rows):
    """Rows of one number each, the smaller the better: (name, result, field, unit)."""
    for name, what, field, unit in (
        ("leader killed, next accepted write, median", "failover", "ms", "ms"),
        ("memory of a node at rest, fresh", "idle", "rss_mb", "MB"),
        ("CPU of three nodes at rest", "idle", "cpu_percent", "% of a core"),
        ("memory of a node after the load", "after", "rss_mb", "MB"),
    ):
        values = [[row[field] for row in rows if row.get("system") == s and row.get("what") == what] for s in SYSTEMS]
        medians = [statistics.median(one) if one else None for one in values]
        spread = [f" ({min(one):,.0f} to {max(one):,.0f}, {len(one)} runs)" if len(one) > 1 else "" for one in values]
        shown = ["-" if m is None else f"{m:,.1f} {unit}{s}" for m, s in zip(medians, spread)]
        ratio = medians[0] / medians[1] if None not in medians and medians[1] else None
        yield [name, *shown, better(ratio)]


def show(head, rows):
    """A Markdown table whose columns line up."""
    rows = [head, *rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if number == 0:
            print("| " + " | ".join("-" * width for width in widths) + " |")


def table(_args):
    rows = [json.loads(line) for line in sys.stdin if line.strip()]
    for row in rows:
        if "note" in row:
            print(f"- {row['note']}")
    print("- last column: how many times better Seaworthy is, above 1 in its favour\n")
    numbers = ["/s", "p50 / p99 / p99.9 ms", "server CPU us/op", "sent to"]
    head = ["load", *(f"{system} {name}" for system in ("etcd", "Seaworthy") for name in numbers), "better"]
    show(head, load_rows(rows))
    print()
    show(["what", "etcd", "Seaworthy", "better"], single_rows(rows))


def label(args):
    """A load run's own JSON, with what it measured."""
    system, op, clients, route, run = args.words
    result(system, op, **{**json.loads(run), "clients": int(clients), "route": route})


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("ready", ready), ("leader", leader), ("failover", failover), ("idle", footprint), ("after", footprint)):
        one = commands.add_parser(name)
        one.set_defaults(run=run)
        one.add_argument("--system", choices=SYSTEMS, required=True)
        one.add_argument("--pids", type=numbers, required=True)
        one.add_argument("--ports", type=numbers, required=True)
        one.add_argument("--victim", type=int)
        one.add_argument("--seconds", type=float, default=0)
    commands.add_parser("label").add_argument("words", nargs=5)
    commands.add_parser("note").add_argument("text")
    commands.add_parser("machine").add_argument("--dir", required=True)
    commands.add_parser("table")
    plain = {"label": label, "note": lambda args: note(args.text), "machine": machine, "table": table}
    args = parser.parse_args()
    answer = (args.run if "run" in args else plain[args.command])(args)
    if asyncio.iscoroutine(answer):
        asyncio.run(answer)


if __name__ == "__main__":
    main()
