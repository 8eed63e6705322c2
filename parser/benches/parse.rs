//! How long it takes to parse Dockerfiles of many lines: `cargo bench -p parser`.
//!
//! The least that is asked: 10,000 lines in 20 ms, a mebibyte in 50 ms, and ten times the lines in ten times the time.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

fn main() {
    divan::main();
}

/// A stage as projects have it: all instructions, continuations, heredocs, comments. `{n}` is replaced by its number.
const STAGE: &str = r#"
# stage-{n} builds part {n} of the service
FROM --platform=$BUILDPLATFORM registry.example.com/base/golang:1.{n}-bookworm AS stage-{n}
ARG VERSION=1.{n}.0 COMMIT
ARG GOFLAGS="-trimpath -buildvcs=false"
ENV CGO_ENABLED=0 \
    GOCACHE=/root/.cache/go-build \
    PATH="/usr/local/go/bin:${PATH}" \
    SERVICE_{n}="part ${VERSION:-none}"
ENV LEGACY the whole rest is one value
LABEL org.opencontainers.image.title="part {n}" \
      org.opencontainers.image.version="${VERSION}" com.example.team=build
WORKDIR /src/part-{n}

# Packages first, they change least.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && \
    # what the compiler needs
    apt-get install -y --no-install-recommends \
        build-essential=12.{n}* \
        ca-certificates \
        git \
        libssl-dev \
        pkg-config && \
    rm -rf /var/lib/apt/lists/*

COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=secret,id=netrc,target=/root/.netrc go mod download
COPY --chown=1000:1000 --chmod=0644 cmd/part-{n} internal/ ./cmd/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/data-{n}.tar.gz /data/
COPY ["file with blanks", "/etc/part-{n}/"]

RUN <<EOF
set -eux
for target in linux/amd64 linux/arm64 linux/riscv64; do
    GOOS=${target%/*} GOARCH=${target#*/} go build -o "out/${target}/part-{n}" ./cmd
done
go vet ./... # a comment of the shell
EOF

COPY <<-"CONFIG" <<SCRIPT /etc/part-{n}/
	[service]
	name = "part {n}"
	listen = "0.0.0.0:80{n}"
	CONFIG
#!/bin/sh
exec /usr/bin/part-{n} --version ${VERSION} "$@"
SCRIPT

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN curl -fsSL https://example.com/install.sh?part={n} | sh -s -- --prefix=/usr/local
RUN ["/usr/bin/install", "-D", "out/part-{n}", "/usr/local/bin/part-{n}"]
MAINTAINER part {n} <team@example.com>
USER 1000:1000
EXPOSE 80{n}/tcp 90{n}/udp
VOLUME ["/data/part-{n}"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=1m --retries=3 \
    CMD curl -f http://localhost:80{n}/health || exit 1
ONBUILD COPY . /app/part-{n}
ENTRYPOINT ["/usr/local/bin/part-{n}"]
CMD ["--config", "/etc/part-{n}/config", "--verbose"]
"#;

/// Makes a Dockerfile that goes on until it is long enough.
fn dockerfile(is_long_enough: impl Fn(&str, usize) -> bool) -> String {
    let mut text =
        "# syntax=docker/dockerfile:1\n# check=error=true\n\nARG REGISTRY=registry.example.com\n"
            .to_owned();
    let (mut stage, mut lines) = (0, 4);
    while !is_long_enough(&text, lines) {
        text += &STAGE.replace("{n}", &stage.to_string());
        lines += STAGE.lines().count();
        stage += 1;
    }
    text
}

/// Parses a text that has to be right: a refusal would be quick, and tell nothing.
fn parse(bencher: Bencher<'_, '_>, text: &str) {
    let count = text.lines().count();
    assert!(parser::parse(text.as_bytes()).is_ok());
    bencher
        .counter(ItemsCount::new(count))
        .counter(BytesCount::of_str(text))
        .bench(|| parser::parse(divan::black_box(text.as_bytes())));
}

#[divan::bench(args = [1_000, 10_000, 100_000])]
fn lines(bencher: Bencher<'_, '_>, count: usize) {
    parse(bencher, &dockerfile(|_, lines| lines >= count));
}

#[divan::bench]
fn mebibyte(bencher: Bencher<'_, '_>) {
    parse(bencher, &dockerfile(|text, _| text.len() >= 1 << 20));
}

/// A mebibyte of nested `${a:-${a:-...}}`, which is expanded.
#[divan::bench]
fn nested_variables(bencher: Bencher<'_, '_>) {
    let depth = (1 << 20) / "${a:-}".len();
    let text = format!("{}x{}", "${a:-".repeat(depth), "}".repeat(depth));
    let mode = parser::word::Mode::default();
    bencher.counter(BytesCount::of_str(&text)).bench(|| {
        parser::word::expand(
            divan::black_box(&text),
            '\\',
            &|_| None,
            mode,
            &parser::word::Budget::new(1 << 25, parser::word::MAX_SIZE),
        )
    });
}

/// Printing of what was parsed.
#[divan::bench]
fn print_10_000_lines(bencher: Bencher<'_, '_>) {
    let text = dockerfile(|_, lines| lines >= 10_000);
    let tree = parser::parse(text.as_bytes()).expect("the text is a Dockerfile");
    bencher.counter(BytesCount::of_str(&text)).bench(|| parser::print(divan::black_box(&tree)));
}
