#!/usr/bin/env python3
"""How the time of a build grows with what it looks at.

  growth.py --tool target/release/build [--runs N] [--out docs/growth]

Measures a build in which nothing changed and one in which one file changed, with contexts of 1,000, 10,000 and
100,000 files and with 10, 100 and 1,000 cached steps. Writes OUT.md, a table, and OUT.svg, a plot of it.  Each
number is the median of N runs after a warm-up.  Ends with 1 if something is clearly steeper than what is looked at.
"""
import argparse, math, os, statistics, subprocess, sys, tempfile, time

SIZES = [1000, 10000, 100000]
STEPS = [10, 100, 1000]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def build(tool, state, ctx):
    env = {**os.environ, "BRICKLAYER_ROOT": state}
    t = time.perf_counter()
    p = subprocess.run([tool, "-t", "growth:1", ctx], env=env, capture_output=True)
    t = time.perf_counter() - t
    if p.returncode:
        sys.exit(p.stderr.decode("utf-8", "replace")[-2000:])
    return t


def measure(tool, runs, prepare, change):
    """Medians of a build of what is unchanged, and of one after each change."""
    with tempfile.TemporaryDirectory() as tmp:
        ctx, state = os.path.join(tmp, "ctx"), os.path.join(tmp, "state")
        prepare(ctx)
        time.sleep(0.3)
        build(tool, state, ctx)
        build(tool, state, ctx)
        same = statistics.median(build(tool, state, ctx) for _ in range(runs))
        changed = []
        for i in range(runs):
            change(ctx, i)
            time.sleep(0.3)
            changed.append(build(tool, state, ctx))
        return same, statistics.median(changed)


def files(count):
    def prepare(ctx):
        write(ctx + "/Dockerfile", "FROM scratch\nCOPY src /src\n")
        for i in range(count):
            write("%s/src/d%d/f%d" % (ctx, i % (count // 100), i), "file %d\n" % i * 20)
    return prepare, lambda ctx, n: write(ctx + "/src/d0/f0", "changed %d\n" % n)


def steps(count):
    def prepare(ctx):
        lines = "".join("COPY f%d /f%d\n" % (i, i) for i in range(count))
        write(ctx + "/Dockerfile", "FROM scratch\n" + lines)
        for i in range(count):
            write("%s/f%d" % (ctx, i), "file %d\n" % i)
    return prepare, lambda ctx, n: write("%s/f%d" % (ctx, count - 1), "changed %d\n" % n)


def svg(series):
    """Two panels, both axes logarithmic: lines that rise no steeper than the dashed one are linear or better."""
    width, height, left, top = 320, 260, 60, 40
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="820" height="340" font-family="sans-serif" font-size="12">',
           '<rect width="820" height="340" fill="white"/>']
    for panel, (title, unit, xs, lines) in enumerate(series):
        x0 = left + panel * 400
        lx = lambda v: x0 + (math.log10(v) - math.log10(xs[0])) / (math.log10(xs[-1]) - math.log10(xs[0])) * width
        ly = lambda ms: top + height - (math.log10(ms) - 0) / 4 * height      # 1 ms to 10 s
        out.append('<text x="%d" y="20" font-size="14">%s</text>' % (x0, title))
        out.append('<path d="M%d %dV%dH%d" fill="none" stroke="black"/>' % (x0, top, top + height, x0 + width))
        for power in range(5):
            y = ly(10 ** power)
            out.append('<text x="%d" y="%.1f" text-anchor="end">%d ms</text>' % (x0 - 6, y + 4, 10 ** power))
            out.append('<path d="M%d %.1fh%d" stroke="#ddd"/>' % (x0, y, width))
        for x in xs:
            out.append('<text x="%.1f" y="%d" text-anchor="middle">%d</text>' % (lx(x), top + height + 16, x))
        out.append('<text x="%d" y="%d" text-anchor="middle">%s</text>' % (x0 + width / 2, top + height + 32, unit))
        out.append('<path d="M%.1f %.1fL%.1f %.1f" stroke="#999" stroke-dasharray="4"/>' % (lx(xs[0]), ly(10), lx(xs[-1]), ly(1000)))
        for n, (name, color, ys) in enumerate(lines):
            points = " ".join("%.1f,%.1f" % (lx(x), ly(max(1, y * 1000))) for x, y in zip(xs, ys))
            out.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>' % (points, color))
            out.append('<text x="%d" y="%d" fill="%s">%s</text>' % (x0 + 10, top + 14 + 16 * n, color, name))
    return "\n".join(out + ["</svg>\n"])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tool", required=True)
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--out", default="docs/growth")
    a = ap.parse_args()
    tool = os.path.abspath(a.tool)
    rows, series = [], []
    for title, unit, xs, make in [("Files in the context", "files", SIZES, files), ("Cached steps", "steps", STEPS, steps)]:
        same, changed = zip(*(measure(tool, a.runs, *make(x)) for x in xs))
        rows += [(x, unit, s, c) for x, s, c in zip(xs, same, changed)]
        series.append((title, unit, xs, [("nothing changed", "#06c", same), ("one file changed", "#c30", changed)]))
    steps_up = [(low, high) for low, high in zip(rows, rows[1:]) if low[1] == high[1]]
    steepest = max(high[k] / low[k] for low, high in steps_up for k in (2, 3))
    with open(a.out + ".md", "w") as f:
        f.write("# How build times grow\n\nMeasured by `bench/growth.py` with a release build on two cores and an ext4 disk: medians of %d runs. The rows with files have a\n"
                "context of that many files and one `COPY`; those with steps have that many `COPY`s of one file each, of which the last changes.\n\n"
                "| size of the build | nothing changed | one file changed |\n|---|---|---|\n" % a.runs)
        for x, unit, same, changed in rows:
            f.write("| %s %s | %.0f ms | %.0f ms |\n" % (format(x, ","), unit, same * 1000, changed * 1000))
        f.write("\n![The same as a plot](%s.svg)\n\nThe dashed line is proportional growth. Between sizes that differ by a factor of 10, times grow by a factor of at most %.1f.\n"
                % (os.path.basename(a.out), steepest))
    with open(a.out + ".svg", "w") as f:
        f.write(svg(series))
    print(open(a.out + ".md").read())
    sys.exit(steepest > 12)


if __name__ == "__main__":
    main()
