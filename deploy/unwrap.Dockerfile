# datakey-unwrap: the static binary and the CA certificates, and nothing else. `make image-unwrap` builds both and then this; by hand:
#
#   make dist && docker build -f deploy/unwrap.Dockerfile target/dist
FROM scratch
ARG TARGETARCH=amd64
COPY ${TARGETARCH}/datakey-unwrap /datakey-unwrap
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/datakey-unwrap"]
