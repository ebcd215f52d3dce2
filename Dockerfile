# A small image with the static binary, and the nft and iptables that lead Services to pods:
#
#     docker build -t krust .
#     docker run -d --name krust -p 6443:6443 -v /var/run/docker.sock:/var/run/docker.sock krust
#     docker exec krust krust kubeconfig > kubeconfig
#
# Where the first base image can not be pulled, `make image` puts a binary that was built outside into the last stage.

FROM rust:1-bookworm AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends protobuf-compiler nftables iptables \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked \
    && install -D target/*-linux-gnu/release/krust /image/usr/local/bin/krust \
    && mkdir -m 1777 /image/tmp \
    && scripts/image-tools.sh /image

FROM scratch
COPY --from=builder image/ /
ENV PATH=/usr/local/bin
VOLUME /var/lib/krust
EXPOSE 6443
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/krust"]
CMD ["server"]
