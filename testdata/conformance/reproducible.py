#!/usr/bin/env python3
"""Builds cases again and again, and wants the same digest every time.

    reproducible.py --tool ./build [--user NAME] [--only GLOB]

Each case is built from two folders: as root and as NAME, on one core and on all, with an empty store and from the
cache.  The time is that of SOURCE_DATE_EPOCH, and younger files get it (rewrite-timestamp).  Prints a line for each case
that came out different, and exits with 1 if there was any.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile

import conformance as kit

HERE = os.path.dirname(os.path.abspath(__file__))
EPOCH = "1700000000"

# Cases whose steps make the same of the same: no random bytes, no clocks, nothing that is told about the user.
CASES = """
add-chmod add-dir-with-tar-inside add-plain-file add-tar add-tar-chown add-tar-gz add-tar-links add-tar-owners-kept
arg-default-and-override arg-env-wins config-history-order config-inherit-all config-workdir-owner copy-chmod-octal
copy-chown-ids copy-dir-contents copy-dir-modes copy-empty-dirs copy-exclude copy-hundreds-of-files copy-link-basic
copy-mtime-kept copy-parents copy-special-bits copy-symlinks-inside-dir copy-unicode-names ignore-negation
mix-compiled-program mix-static-site mount-bind-rw-discarded mount-stub-not-in-layer mount-tmpfs run-chmod-chown-only
run-delete-and-recreate-dir run-delete-dir run-fifo run-many-small-layers run-rename-dir run-special-modes run-symlinks
run-umask-and-modes stage-copy-between stage-from-stage stage-onbuild-triggers syntax-heredoc-copy syntax-heredoc-run
""".split()


def prepare(folder, case, top):
    """A context with the modes that git does not keep."""
    ctx = os.path.join(top, "ctx")
    shutil.copytree(os.path.join(folder, "ctx"), ctx, symlinks=True)
    for base, dirs, names in os.walk(ctx):
        for d in dirs:
            os.chmod(os.path.join(base, d), 0o755)
        for n in names:
            p = os.path.join(base, n)
            if not os.path.islink(p):
                os.chmod(p, 0o755 if os.stat(p).st_mode & 0o100 else 0o644)
    os.chmod(ctx, 0o755)
    if case.get("setup"):
        kit.shell(case["setup"], ctx)
    return ctx


def build(tool, ctx, top, case, user, cores, number):
    step = (case.get("steps") or [{}])[0]
    dest = os.path.join(top, "out%d.tar" % number)
    sub = lambda s: s.replace("{ctx}", ctx).replace("{tmp}", top)
    cmd = ["taskset", "-c", cores] + shlex.split(tool) + [sub(a) for a in step.get("args", [])] + kit.base_images()
    cmd += ["-o", "type=oci,rewrite-timestamp=true,dest=" + dest, sub(step.get("context", "{ctx}"))]
    env = {**os.environ, "BRICKLAYER_ROOT": os.path.join(top, "state"), **case.get("env", {}), "SOURCE_DATE_EPOCH": EPOCH}
    who = {}
    if user:
        entry = pwd.getpwnam(user)
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "umask": 0o022}
        env.update(HOME=entry.pw_dir, USER=user, LOGNAME=user)
        for key in [key for key in env if key.startswith(("XDG_", "SUDO_"))]:
            del env[key]
    pipe = subprocess.PIPE
    p = subprocess.Popen(cmd, cwd=ctx, env=env, stdin=pipe, stdout=pipe, stderr=pipe, **who)
    try:
        out, err = p.communicate(step.get("stdin", "").encode(), timeout=120)
    except subprocess.TimeoutExpired:
        # What everyone waits for, before it is gone.
        list_all = ["ps", "-eLo", "pid,ppid,lwp,stat,wchan:24,args", "--cols", "160"]
        seen = subprocess.run(list_all, capture_output=True).stdout.decode("utf-8", "replace")
        p.kill()
        raise RuntimeError("no end in 120 s\n" + (p.communicate()[1]).decode("utf-8", "replace")[-800:] + seen)
    if p.returncode:
        raise RuntimeError((out + err).decode("utf-8", "replace")[-1500:])
    with tarfile.open(dest) as archive:
        return json.load(archive.extractfile("index.json"))["manifests"][0]["digest"]


def digests(name, tool, user):
    folder = os.path.join(HERE, "cases", name)
    case = json.load(open(os.path.join(folder, "case.json")))
    all_cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    one_core = str(min(os.sched_getaffinity(0)))
    found = {}
    for who in [None, user] if user else [None]:
        scratch = tempfile.mkdtemp(prefix="conf-" + ("a" if who else "and-a-longer-name-"))
        try:
            ctx = prepare(folder, case, scratch)
            os.chmod(scratch, 0o755)
            if who:
                kit.give_to(pwd.getpwnam(who), scratch)
            cores = [one_core, all_cores] if who is None else [all_cores, one_core]
            for number, way in enumerate(["cold", "from the cache"]):
                how = "%s, %s, cores %s" % (who or "root", way, cores[number])
                found[how] = build(tool, ctx, scratch, case, who, cores[number], number)
        finally:
            subprocess.run(["chmod", "-R", "u+rwx", scratch], capture_output=True)
            shutil.rmtree(scratch, ignore_errors=True)
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tool", required=True)
    ap.add_argument("--user", help="also build as this user (needs root)")
    ap.add_argument("--images", help="folder of the base images, if not that of the kit")
    ap.add_argument("--only", default="*")
    ap.add_argument("--jobs", type=int, default=os.cpu_count())
    a = ap.parse_args()
    kit.IMAGES = a.images or kit.IMAGES
    names = [name for name in CASES if fnmatch.fnmatch(name, a.only)]

    def one(name):
        try:
            return name, digests(name, a.tool, a.user), None
        except Exception as e:
            return name, {}, "%s: %s" % (type(e).__name__, e)

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for name, found, error in pool.map(one, names):
            if error or len(set(found.values())) != 1:
                bad += 1
                print("DIFFERENT %s" % name)
                print("    " + (error or "\n    ".join("%s  %s" % (d, how) for how, d in found.items())))
    print("%d the same, %d different" % (len(names) - bad, bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
