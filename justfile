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

# What this machine offers a log.
doctor *dirs:
    cargo run --release -p oncelog-cli -- doctor {{dirs}}
