# The subscriber. Built for arm64 unless told otherwise: docker build --platform linux/arm64 .
FROM python:3.13.9-slim-trixie AS build
WORKDIR /build
COPY requirements.txt requirements-subscriber.txt constraints.txt ./
RUN python -m venv /venv \
 && /venv/bin/python -m pip install --no-cache-dir --only-binary :all: -c constraints.txt -r requirements-subscriber.txt \
 && /venv/bin/python -m pip uninstall --yes pip

FROM python:3.13.9-slim-trixie
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
