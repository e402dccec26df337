# The release image: the broker and the C library that it runs on, nothing else. No shell, no package manager, not root.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Without default features: no sandbox and no `dev` command in a release.
RUN cargo build --release --locked --no-default-features --bin token-broker
# The program with the shared objects that it names, each at the path where the loader looks for it, and a mount point
# for configuration and secrets.
RUN set -eu; \
    mkdir -p /image/etc/token-broker; \
    cp target/release/token-broker LICENSE /image/; \
    ldd /image/token-broker | grep -o '/[^ ]*' | xargs cp -L --parents -t /image

FROM scratch
COPY --from=build /image /
# By number, so that an orchestrator can see that it is not root.
USER 65532:65532
ENV TOKEN_BROKER_CONFIG=/etc/token-broker/token-broker.toml
ENTRYPOINT ["/token-broker"]
CMD ["serve"]
# The binary asks itself: there is no shell and no curl here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/token-broker", "healthcheck"]
