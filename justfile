# The verbs of this house. `just` lists them.

default:
    @just --list

# Shows the main job: a writer is killed again and again, nothing is lost or doubled.
demo *args:
    cargo run --release -p oncelog-cli -- demo {{args}}

# The tests.
test *args:
    cargo test --workspace {{args}}

# Everything that must hold before a change goes in.
ci:
    .ci/run

# Formats the code.
fmt:
    cargo fmt --all

# Lints, with warnings as errors.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# The documentation of the crates.
doc:
    cargo doc --workspace --no-deps

# Kills a writer this many times on each device.
kill rounds='2000':
    ONCELOG_KILL_ROUNDS={{rounds}} cargo test --release -p oncelog-cli --test kill -- --nocapture

# Asks Apache Kafka's own classes about random scripts and compares.
differential seeds='1..2001':
    ONCELOG_DIFFERENTIAL_SEEDS={{seeds}} cargo test --release -p oncelog-cli --test differential -- --nocapture

# Cuts the power at every moment of recorded runs: this many small histories whole, this many large ones by chance.
recorder small='200' large='2000':
    ONCELOG_RECORDER={{small}},{{large}} cargo test --release -p oncelog-sim --test recorder -- --nocapture

# The deterministic simulator.
sim *args:
    cargo run --release -p oncelog-sim -- {{args}}

# The benchmarks.
bench *args:
    cargo run --release -p oncelog-bench -- {{args}}

# Every suite in five short rounds, one after the other: figures as JSON lines into `file`, drawings into `plots`.
measure file='figures.json' plots='docs/performance' rounds='5':
    #!/usr/bin/env bash
    set -euo pipefail
    # An incremental build inlines nothing from one crate into another.
    export CARGO_INCREMENTAL=0
    bench() { cargo run --quiet --release -p oncelog-bench -- "$@"; }
    : > '{{file}}'
    for suite in sustained bulk durable small many-logs busy read memory transactions dedup producers spill snapshot eos recovery; do
        bench "$suite" --short --rounds '{{rounds}}' --json >> '{{file}}' || echo "$suite stopped early" >&2
        echo "$suite: $SECONDS s so far" >&2
    done
    bench draw --plots '{{plots}}' < '{{file}}'

# What this machine offers a log.
doctor *dirs:
    cargo run --release -p oncelog-cli -- doctor {{dirs}}
