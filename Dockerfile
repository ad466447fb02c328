# Two images; built for arm64 unless told otherwise: docker build --platform linux/arm64 .
#   subscriber (the last, which is built by default)  the container on AWS
#   machine                                           the whole service on one machine, for docker-compose.yaml
FROM python:3.13.9-slim-trixie AS build
WORKDIR /build
COPY locks locks
RUN python -m venv --without-pip /venv \
 && python -m pip --python /venv/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r locks/subscriber.txt

FROM build AS build-machine
RUN python -m pip --python /venv/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r locks/local.txt

FROM python:3.13.9-slim-trixie AS machine
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin discovery \
 && install --directory --owner 10001 /state
COPY --from=build-machine /venv /venv
WORKDIR /app
COPY app.py ./
COPY chalicelib chalicelib
COPY subscriber subscriber
COPY infra infra
RUN /venv/bin/python -m compileall -q /venv/lib app.py chalicelib subscriber infra
# The root may be read-only: nothing is written but /state, /tmp and the log.
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 DISCOVERY_LOCAL_DIR=/state
USER 10001
VOLUME /state
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/xrpc/_health', timeout=8)"]
ENTRYPOINT ["python", "-m", "infra.local", "--address", "0.0.0.0"]

FROM python:3.13.9-slim-trixie AS subscriber
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin subscriber
COPY --from=build /venv /venv
WORKDIR /app
COPY chalicelib chalicelib
COPY subscriber subscriber
RUN /venv/bin/python -m compileall -q /venv/lib chalicelib subscriber
# The root may be read-only: nothing is written but the log.
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "subscriber.healthy"]
ENTRYPOINT ["python", "-m", "subscriber"]
