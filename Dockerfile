# syntax=docker/dockerfile:1
# SPDX-License-Identifier: Apache-2.0
# Three stages: the plugins (wasm), the host, and a small image that runs them without rights and without a shell's help.
# Building needs the network for crates; running needs none but that of the vendors.

ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-trixie
ARG RUN_IMAGE=docker.io/library/debian:trixie-slim

FROM ${RUST_IMAGE} AS sources
RUN command -v cc >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; }
WORKDIR /src
COPY . .

FROM sources AS plugins
# The toolchain file names the target; with rustup it is added, without it the image must have it.
RUN cargo xtask plugins

FROM sources AS host
RUN cargo build --release --locked --package penstock --bins

FROM ${RUN_IMAGE}
# Roots of trust for vendors; the policies can name further ones.
RUN [ -e /etc/ssl/certs/ca-certificates.crt ] || { apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*; }
RUN groupadd --system --gid 10001 penstock && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin penstock \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/penstock
COPY --from=host /src/target/release/penstock /usr/local/bin/penstock
COPY --from=plugins /src/target/plugins/ /usr/share/penstock/plugins/
COPY policies/ /etc/penstock/
# A container's loopback reaches nobody: callers come from outside. The admin API stays on loopback.
RUN sed -i 's/^address = "127\.0\.0\.1:8080"/address = "0.0.0.0:8080"/' /etc/penstock/default.toml && rm -rf /etc/penstock/examples
ENV PENSTOCK_POLICIES=/etc/penstock PENSTOCK_STATE=/var/lib/penstock
USER 10001:10001
WORKDIR /var/lib/penstock
VOLUME /var/lib/penstock
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["penstock", "health"]
ENTRYPOINT ["penstock"]
CMD ["run"]
