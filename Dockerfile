# The image of mirror: docker build -t REGISTRY/mirror:TAG .
# (then set REGISTRY and TAG in deploy/kustomization.yaml)
# Both base images are named by tag, which their publisher can move. If you build for others, pin them by
# the digest that `docker buildx imagetools inspect IMAGE:TAG` shows.

FROM rust:1.95-bookworm AS build
WORKDIR /mirror
COPY . .
# Stable Rust is enough, because the programs for the kernel are committed, with a hash of their sources.
# jemalloc runs only where pages are no larger than those it was built for; some arm64 kernels have 64 KiB.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi; \
    cargo build --locked --release -p mirror-user

# The same release as above, for its libc; the binary needs nothing else.
FROM debian:bookworm-slim
COPY --from=build /mirror/target/release/mirror /usr/local/bin/mirror
# The agent runs as root, with the capabilities that its DaemonSet names; the controller as the user of its Deployment.
ENTRYPOINT ["/usr/local/bin/mirror"]
