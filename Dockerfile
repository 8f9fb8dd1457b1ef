# Every image of the system, one target each: edge, order-service, inventory-service, standalone (all in one process) and
# load. `just images` builds them; all share one build, and a change of sources alone compiles no dependency again.

# Of the version that rust-toolchain.toml names, which stays outside: it would make rustup fetch what no build needs.
FROM rust:1.95.0-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0 AS chef
RUN cargo install --locked --version =0.1.78 cargo-chef
WORKDIR /src

# What of the sources decides how dependencies are built.
FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path /recipe.json

FROM chef AS build
ARG PACKAGES="--package edge --package order --package inventory --package standalone --package load"
# libc becomes a part of each program, so that an image needs nothing beside it. With a target named, the flag is not for
# what runs while building.
ENV RUSTFLAGS="-C target-feature=+crt-static"
COPY --from=plan /recipe.json /recipe.json
# shellcheck disable=SC2086 # a list
RUN cargo chef cook --release --locked --target "$(rustc --print host-tuple)" $PACKAGES --recipe-path /recipe.json
COPY . .
# Frozen: all that comes from outside is there.
# shellcheck disable=SC2086 # a list
RUN cargo build --release --frozen --target "$(rustc --print host-tuple)" --bins $PACKAGES && \
    mkdir /data /programs && cp target/*/release/edge target/*/release/order-service target/*/release/inventory-service \
        target/*/release/standalone target/*/release/load /programs

# No shell, no package manager, no libraries; certificates of authorities, and a user that owns nothing.
FROM gcr.io/distroless/static-debian13:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3 AS runtime
USER 65532:65532
WORKDIR /
STOPSIGNAL SIGTERM
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.vendor="DevOps Order System"

FROM runtime AS edge
LABEL org.opencontainers.image.title="edge" \
      org.opencontainers.image.description="HTTP/JSON in front of the order system's gRPC services"
ENV HTTP_ADDR=0.0.0.0:8080 ADMIN_ADDR=0.0.0.0:9465
EXPOSE 8080 9465
COPY --from=build /programs/edge /edge
ENTRYPOINT ["/edge"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/edge", "healthcheck"]

FROM runtime AS order-service
LABEL org.opencontainers.image.title="order-service" \
      org.opencontainers.image.description="Places orders: the ledger in Postgres, its events to RabbitMQ"
ENV ORDER_GRPC_ADDR=0.0.0.0:50051 ADMIN_ADDR=0.0.0.0:9466
EXPOSE 50051 9466
COPY --from=build /programs/order-service /order-service
ENTRYPOINT ["/order-service"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/order-service", "healthcheck"]

FROM runtime AS inventory-service
LABEL org.opencontainers.image.title="inventory-service" \
      org.opencontainers.image.description="Holds, releases and counts stock in Redis; consumes the events of RabbitMQ"
ENV INVENTORY_GRPC_ADDR=0.0.0.0:50052 ADMIN_ADDR=0.0.0.0:9467
EXPOSE 50052 9467
COPY --from=build /programs/inventory-service /inventory-service
ENTRYPOINT ["/inventory-service"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/inventory-service", "healthcheck"]

FROM runtime AS standalone
LABEL org.opencontainers.image.title="standalone" \
      org.opencontainers.image.description="The whole order system in one process, with embedded stores in /data"
ENV HTTP_ADDR=0.0.0.0:8080 ORDER_GRPC_ADDR=0.0.0.0:50051 INVENTORY_GRPC_ADDR=0.0.0.0:50052 \
    ADMIN_ADDR=0.0.0.0:9464 DATA_DIR=/data
EXPOSE 8080 50051 50052 9464
COPY --from=build --chown=65532:65532 /data /data
VOLUME /data
COPY --from=build /programs/standalone /standalone
ENTRYPOINT ["/standalone"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/standalone", "healthcheck"]

FROM runtime AS load
LABEL org.opencontainers.image.title="load" \
      org.opencontainers.image.description="Clients that place orders, repeat what was not answered, and count"
COPY --from=build /programs/load /load
ENTRYPOINT ["/load"]
