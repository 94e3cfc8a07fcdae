# SPDX-FileCopyrightText: The Stowage authors
# SPDX-License-Identifier: EUPL-1.2
#
# The images of `make image`, for those who have a container engine:
#
#   docker build --target stowage-registry -t stowage-registry .
#   docker build --target stowage-operator -t stowage-operator .

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# One package at a time, so that no feature of one leaks into the other.
RUN cargo build --locked --release -p stowage-registry && cargo build --locked --release -p stowage-operator

FROM docker.io/library/debian:bookworm-slim AS base
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates tzdata \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 65532 --user-group --no-create-home --home-dir / --shell /none stowage
USER 65532:65532
WORKDIR /

FROM base AS stowage-registry
COPY --from=build /src/target/release/stowage-registry /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/stowage-registry"]

FROM base AS stowage-operator
COPY --from=build /src/target/release/stowage-operator /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/stowage-operator"]
