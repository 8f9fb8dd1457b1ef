# The project's commands. `./justw RECIPE` is the same as `just RECIPE`, and works where just is not installed.

set positional-arguments := true

# Nobody edits and builds again on a machine that only checks.
export CARGO_INCREMENTAL := env("CARGO_INCREMENTAL", if env("CI", "") == "true" { "0" } else { "1" })
export PATH := justfile_directory() / ".tools/bin:" + env("PATH")

# Scripts are found by their first line, so that none is forgotten.
shell_scripts := "git grep --untracked --null -l -E '^#!.*[/ ][a-z]*sh( |$)' -- ':!*.md'"
python_scripts := "git grep --untracked --null -l -E '^#!.*[/ ]python3( |$)' -- ':!*.md'"

# What the workflow runs besides `ci`, because it takes a container engine or the network. A test compares the three.
engine := "images images-check compose-smoke images-save advisories publish"

# What another workflow runs every night, longer than there is time for with each change. A test compares the two.
nightly := "api-test chaos fuzz honesty planted restarts simulate"

# The images that are published; the others only serve the Compose stack.
published := "edge order-service inventory-service standalone"

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
ci: fmt lint proto openapi deny leaks docs test simulate chaos api-test

# Runs all tests, on real servers too, which it installs when they are missing; or one crate's tests that need none:
# order, inventory, edge, broker, service, contracts, standalone. A filter may follow.
test crate="" *filter: tools
    {{ if crate == "" { "just test-all" } else { "cargo-nextest nextest run --locked --profile quick --package " + quote(crate) } }} {{ filter }}

# Runs all tests; a filter may follow.
[private]
test-all *filter: api-tools servers
    cargo build --workspace --all-targets --locked
    target/debug/servers run -- cargo-nextest nextest run --locked --workspace {{ filter }}

# `--seed N` runs one and tells all that happens.
# Runs the real services over simulated stores, network and clock, from so many seeds, and breaks everything: CONTRIBUTING.md.
simulate *arguments:
    cargo run --locked --quiet {{ if arguments =~ '^[0-9]{5}' { "--release" } else { "" } }} --package simulation -- "$@"

# Restarts all services in turn under load for so long, on real servers, and expects that no client notices.
restarts seconds="60": tools servers
    cargo build --workspace --all-targets --locked
    RESTART_SECONDS={{ quote(seconds) }} target/debug/servers run -- cargo-nextest nextest run --locked --package system-tests --test servers_restarts --profile long --no-capture everything_restarted

# Does so many random operations on the simulated stores and on real ones, and expects the same answers.
honesty operations="10000": tools servers
    cargo build --workspace --all-targets --locked
    SIMULATION_HONESTY_OPERATIONS={{ quote(operations) }} target/debug/servers run -- cargo-nextest nextest run --locked --package simulation -E 'binary(/^servers_honesty_/)'

# Searches the first seed that finds each planted bug, or one that is named.
planted *bug:
    cargo run --locked --quiet --package simulation -- --planted "$@"

# Without arguments a minute of it, on what the tests have built; `--minutes 60`, `--figures long` and other arguments, which
# `target/debug/chaos --help` lists, on release binaries.
# Breaks two of everything on real servers under load, in an order that a seed decides, and judges what clients were told.
chaos *arguments: tools servers
    cargo build --locked {{ if arguments == "" { "--workspace --all-targets" } else { "--release --bins --package chaos --package edge --package order --package inventory" } }}
    {{ if arguments == "" { "target/debug/chaos --minutes 1" } else { "target/release/chaos " + arguments } }}

# Makes up input for each parser of what strangers send, so many seconds each, and keeps what fails: CONTRIBUTING.md.
fuzz seconds="60": tools
    FUZZ_SECONDS={{ quote(seconds) }} cargo-nextest nextest run --locked --profile fuzz --package fuzz

# Checks the formatting of the Rust and the Python code.
fmt: tools
    cargo fmt --all --check
    {{ python_scripts }} | xargs -0 ruff format --check --diff

# Formats the Rust and the Python code and the proto files.
fmt-fix: tools
    cargo fmt --all
    {{ python_scripts }} | xargs -0 ruff format
    buf format --write

# Lints the Rust code, the scripts, the Dockerfiles, the YAML files, the workflows and the spelling.
lint: tools
    cargo clippy --workspace --all-targets --locked -- --deny warnings
    {{ shell_scripts }} | xargs -0 shellcheck
    {{ python_scripts }} | xargs -0 ruff check
    git ls-files -z --cached --others --exclude-standard -- '*Dockerfile' '*Dockerfile.*' | xargs -0 hadolint
    yamllint --strict .
    actionlint
    zizmor --offline --quiet --persona auditor .github
    check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
    check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
    check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
    typos

# Checks the proto files: lint, formatting, and no breaking change against the committed baseline.
proto: tools
    buf lint
    buf format --diff --exit-code
    buf breaking --against proto/baseline.binpb

# Makes what the proto files say now the baseline: only together with a release.
proto-baseline: tools
    buf build --exclude-source-info --output proto/baseline.binpb

# Checks edge/openapi.json, which describes the HTTP API, with three validators; a warning is an error.
openapi: api-tools
    openapi-spec-validator --validation-errors all edge/openapi.json
    REDOCLY_TELEMETRY=off redocly lint --config scripts/openapi/redocly.yaml --max-problems 1000 edge/openapi.json
    spectral lint --ruleset scripts/openapi/spectral.yaml --fail-severity hint edge/openapi.json

# Writes edge/openapi.json anew, from the routes.
openapi-write:
    cargo run --locked --quiet --package edge -- openapi > target/openapi.json
    mv target/openapi.json edge/openapi.json

# With a number at least so many requests go to each of three addresses, else there is about a minute for them.
# Asks the running edge what edge/openapi.json allows and forbids, on embedded stores and on real servers.
api-test *cases: api-tools servers
    cargo build --locked --package standalone --package servers --package edge --package order --package inventory --bins
    @scripts/api-test "$@"

# Checks the dependencies: bans, licences, sources.
deny: tools
    cargo fetch --locked --quiet
    cargo-deny --offline --locked check bans licenses sources

# Looks for secrets in every commit.
leaks: scanner
    @scripts/leaks

# Checks the dependencies against the advisories known today, which it downloads: what passed yesterday may fail.
advisories: tools
    cargo-deny --locked check advisories

# Builds the images as localhost/order-system/NAME:dev, and takes layers from the folder IMAGE_CACHE where that is set.
images:
    @scripts/images build

# Checks what the built images hold: user, labels, health check, size, architecture, no secret.
images-check: scanner
    @scripts/images-check

# Writes the images to be published to target/images/, one archive for each architecture.
images-save:
    @scripts/images save {{ published }}

# Pushes the images out of target/images/ to Docker Hub and GHCR under the names that GITHUB_REF asks for.
publish:
    @scripts/publish {{ published }}

# Brings docker-compose.yml up from built images, orders, restarts and kills its parts, and audits what is left.
compose-smoke:
    @scripts/compose-smoke

# Writes .env with random values if there is none, builds the images, and brings docker-compose.yml up.
compose-up: images
    @scripts/compose-up

# Takes it down again; the data stays, unless `--volumes` is given.
compose-down *arguments:
    @${COMPOSE:-docker compose} --profile '*' down "$@"

# Builds the documentation of the crates; a broken link is an error.
docs:
    RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items --locked

# Publishes the events that could not be handled again, to the RabbitMQ of BROKER_URL.
replay-dead-letters:
    cargo run --locked --quiet --package inventory --bin inventory-service -- replay-dead-letters

# Compares ledger, outbox and stock store of what runs at an ADMIN_ADDR, or of the all-in-one; fails if they do not fit.
[no-exit-message]
audit *address:
    @scripts/audit "$@"

# Installs Postgres, Redis, RabbitMQ, NGINX and Prometheus where they are missing, and starts none of them.
servers:
    @scripts/servers tests

# Installs the pinned development tools under .tools/.
tools:
    @scripts/tools

# Installs what the checks of the API and the test of examples/ need under .tools/ and in examples/typescript.
api-tools: tools
    @scripts/api-tools

# Installs the pinned scanner of leaks and images-check under .tools/.
[private]
scanner:
    @scripts/scanner
