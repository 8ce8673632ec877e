# Recipes for those who have `just`; each is one command that works without it.

# The recipes.
default:
    @just --list

# Format, lint, unit tests and a short simulation: no root, nothing to be installed.
quick *filter:
    tests/quick {{filter}}

# Everything that has to pass before a change lands (Debian, as root).
test:
    tests/run

# Licenses, sources and versions of the dependencies.
deny:
    .cargo/deny

# One seed of the simulator, with its trace if it fails.
seed number:
    LEASEHOLD_SEED={{number}} cargo test --lib promises_hold -- --nocapture

# The documentation, private items too.
doc:
    cargo doc --no-deps --document-private-items --open

# A release in a directory: archive, packages, SBOM, notes, checksums.
release dir:
    deploy/release {{dir}}

# A cluster on this machine, to look at; `deploy/lab/down DIR` ends it.
lab dir:
    deploy/lab/up {{dir}}
