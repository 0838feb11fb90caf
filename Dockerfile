# arcmesh as an image: `cpu` (the default), and `gpu` with Intel's OpenCL driver for /dev/dri.
ARG RUST_IMAGE=rust:1-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin arcmesh && strip target/release/arcmesh

FROM ${BASE_IMAGE} AS runtime
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# One that owns nothing else, so that volumes are written by it alone.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/arcmesh arcmesh \
    && mkdir -p /certs && chown arcmesh /certs
COPY --from=build /src/target/release/arcmesh /usr/local/bin/arcmesh
COPY scripts/alive /usr/local/bin/alive
ENV ARCMESH_CACHE=/var/lib/arcmesh/models
USER arcmesh
RUN mkdir -p /var/lib/arcmesh/models
ENTRYPOINT ["arcmesh"]
CMD ["--help"]

FROM runtime AS gpu
USER root
RUN apt-get update && apt-get install -y --no-install-recommends intel-opencl-icd \
    && rm -rf /var/lib/apt/lists/*
USER arcmesh

FROM runtime AS cpu
