#!/usr/bin/env python3
"""Pull of a base of eight layers of 40 MB, against fetching and unpacking them one after the other with curl and tar.

  pull.py --build target/release/build [--runs N] [--scratch FOLDER]        needs docker-registry, curl; root

Starts a registry of its own on loopback and pushes a base whose layers it makes: half of each layer can be compressed.  Then
both are run in turn, and the medians and their ratio are printed.  The goal is a ratio of at most 0.6, and less than 150 MB of memory.  Nothing else should
run on the machine; the page cache is warm for both.
"""
import argparse, gzip, hashlib, io, json, os, random, shutil, socket, statistics, subprocess, sys, tarfile, tempfile, time
import urllib.request

LAYERS, SIZE = 8, 40_000_000


def layer(seed):
    rnd = random.Random(seed)
    text = b"".join(b"line %d of %d\n" % (line, seed) for line in range(2000))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(40):
            part = SIZE // 40
            data = rnd.randbytes(part // 2) + (text * (part // 2 // len(text) + 1))[:part // 2]
            info = tarfile.TarInfo("layer%d/file%d" % (seed, number))
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    plain = out.getvalue()
    return gzip.compress(plain, 6), "sha256:" + hashlib.sha256(plain).hexdigest()


def ask(method, url, data=None, kind=None):
    request = urllib.request.Request(url, data=data, method=method)
    if kind:
        request.add_header("Content-Type", kind)
    return urllib.request.urlopen(request)


def push(host, repository, blob):
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    place = ask("POST", "http://%s/v2/%s/blobs/uploads/" % (host, repository), b"").headers["Location"]
    ask("PUT", place + ("&" if "?" in place else "?") + "digest=" + digest, blob, "application/octet-stream")
    return {"digest": digest, "size": len(blob)}


def make(host):
    layers = [layer(seed) for seed in range(LAYERS)]
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": dict(push(host, "base", json.dumps(config).encode()), mediaType="application/vnd.oci.image.config.v1+json"),
                "layers": [dict(push(host, "base", blob), mediaType="application/vnd.oci.image.layer.v1.tar+gzip")
                           for blob, _ in layers]}
    ask("PUT", "http://%s/v2/base/manifests/1" % host, json.dumps(manifest).encode(), manifest["mediaType"])
    return [entry["digest"] for entry in manifest["layers"]]


def timed(command, **settings):
    """Seconds that a command took, and the most memory that its process had, in MB."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **settings)
    memory = 0
    while process.poll() is None:
        # What `wait` tells counts what this script had when it forked.
        with open("/proc/%d/status" % process.pid) as status:
            memory = max([memory] + [int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")])
        time.sleep(0.01)
    if process.returncode:
        sys.exit("%s ended with %d" % (command[0], process.returncode))
    return time.perf_counter() - begun, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scratch", default=None, help="folder on the disk to be measured")
    options = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix="pull-", dir=options.scratch)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = "127.0.0.1:%d" % probe.getsockname()[1]
    config = os.path.join(scratch, "registry.yml")
    with open(config, "w") as file:
        file.write("version: 0.1\nlog: {level: error}\nhttp: {addr: '%s'}\nstorage: {filesystem: {rootdirectory: '%s/data'}}\n" % (host, scratch))
    registry = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                ask("GET", "http://%s/v2/" % host)
                break
            except OSError:
                time.sleep(0.05)
        digests = make(host)
        context = os.path.join(scratch, "context")
        os.mkdir(context)
        with open(os.path.join(context, "Dockerfile"), "w") as file:
            # The copy looks into every layer, and runs nothing.
            file.write("FROM %s/base:1 AS base\nFROM scratch\n" % host
                       + "".join("COPY --from=base /layer%d/file0 /%d\n" % (n, n) for n in range(LAYERS)))
        # One layer after the other: fetched, decompressed and unpacked; nothing is verified.
        plain = "set -e -o pipefail; mkdir -p %s/plain\n" % scratch + "".join(
            "mkdir %s/plain/%d; curl -sf http://%s/v2/base/blobs/%s | tar xzf - -C %s/plain/%d\n"
            % (scratch, n, host, digest, scratch, n) for n, digest in enumerate(digests))
        ours, theirs, most = [], [], 0
        for run in range(options.runs + 1):
            state = os.path.join(scratch, "state")
            environment = dict(os.environ, BRICKLAYER_ROOT=state)
            mine, memory = timed([options.build, "-q", "-o", "type=cacheonly", context], env=environment)
            other, _ = timed(["bash", "-c", plain], stderr=subprocess.DEVNULL)
            shutil.rmtree(state)
            shutil.rmtree(os.path.join(scratch, "plain"))
            if run:  # The first is a warm-up.
                most = max(most, memory)
                ours.append(mine)
                theirs.append(other)
        mine, other = statistics.median(ours), statistics.median(theirs)
        print("builder %.2f s, curl and tar %.2f s, ratio %.2f, at most %d MB of memory" % (mine, other, mine / other, most))
        sys.exit(0 if mine <= 0.6 * other and most < 150 else 1)
    finally:
        registry.terminate()
        registry.wait()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
