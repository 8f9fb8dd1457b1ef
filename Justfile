# The project's commands. `./justw RECIPE` is the same as `just RECIPE`, and works where just is not installed.

set positional-arguments := true

# Nobody edits and builds again on a machine that only checks.
export CARGO_INCREMENTAL := env("CARGO_INCREMENTAL", if env("CI", "") == "true" { "0" } else { "1" })
export PATH := justfile_directory() / ".tools/bin:" + env("PATH")

# Lists the recipes.
default:
    @just --list --unsorted

# Builds and runs the whole system in one process, with its data in ./data; Ctrl-C drains and stops it.
[no-exit-message]
up *arguments:
    @exec cargo run --locked --package standalone -- "$@"

# With its data in ./data/stack, which stays. Others may be set: `target/debug/servers` lists them.
# `stack up`: in the background two of each service on real Postgres, Redis, RabbitMQ and NGINX; `stack down` ends them.
[no-exit-message]
stack *arguments:
    @{{ if arguments == "up" { "scripts/servers" } else { "true" } }}
    @{{ if arguments == "down" { "test -x target/debug/servers ||" } else { "" } }} cargo build --locked --package servers --bins {{ if arguments == "up" { "--package edge --package order --package inventory" } else { "" } }}
    @exec target/debug/servers stack "$@"

# Every check, in the order that finds mistakes soonest.
ci: fmt lint proto deny docs test

# Runs all tests, on real servers too, which it installs when they are missing; or one crate's tests that need none:
# order, inventory, edge, broker, service, contracts, standalone. A filter may follow.
test crate="" *filter: tools
    {{ if crate == "" { "just test-all" } else { "cargo-nextest nextest run --locked --profile quick --package " + quote(crate) } }} {{ filter }}

# Runs all tests; a filter may follow.
[private]
test-all *filter: tools servers
    cargo build --workspace --all-targets --locked
    target/debug/servers run -- cargo-nextest nextest run --locked --workspace {{ filter }}

# Checks the formatting of the Rust code.
fmt:
    cargo fmt --all --check

# Formats the Rust code and the proto files.
fmt-fix: tools
    cargo fmt --all
    buf format --write

# Lints the Rust code, the shell scripts, the YAML files, the workflows and the spelling.
lint: tools
    cargo clippy --workspace --all-targets --locked -- --deny warnings
    shellcheck justw .ci/run scripts/python-env scripts/servers scripts/system-package scripts/tools
    yamllint --strict .
    actionlint
    zizmor --offline --quiet .github
    check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
    typos

# Checks the proto files: lint, formatting, and no breaking change against the committed baseline.
proto: tools
    buf lint
    buf format --diff --exit-code
    buf breaking --against proto/baseline.binpb

# Makes what the proto files say now the baseline: only together with a release.
proto-baseline: tools
    buf build --exclude-source-info --output proto/baseline.binpb

# Checks the dependencies: bans, licences, sources.
deny: tools
    cargo fetch --locked --quiet
    cargo-deny --offline --locked check bans licenses sources

# Builds the documentation of the crates; a broken link is an error.
docs:
    RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items --locked

# Publishes the events that could not be handled again, to the RabbitMQ of BROKER_URL.
replay-dead-letters:
    cargo run --locked --quiet --package inventory --bin inventory-service -- replay-dead-letters

# Installs Postgres, Redis, RabbitMQ and NGINX where they are missing, and starts none of them.
servers:
    @scripts/servers

# Installs the pinned development tools under .tools/.
tools:
    @scripts/tools
