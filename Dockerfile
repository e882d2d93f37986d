# docker build -t visor .
# docker run --rm visor                                                              the whole pipeline
# docker run --rm -p 8501:8501 visor sh -c 'make repro && visor app --host 0.0.0.0'  the privacy app, with its networks
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /visor
COPY . .
RUN make setup
ENV PATH="/visor/.venv/bin:$PATH"
CMD ["make", "repro"]
