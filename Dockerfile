# One image, all roles: the command names the role (compose.yaml).
#
# The base is pinned to Python's minor version and Debian's release, not to a patch: rebuilding with --pull brings the
# security fixes of both. Whoever needs the very same bytes again pins a digest here.

# The wheel is built with the build backend of the development lock: by hash like everything else. Nothing of this
# stage but the wheel goes further.
FROM python:3.11-slim-bookworm AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUTF8=1
WORKDIR /src
COPY requirements-dev.lock ./
RUN python -m pip install --require-hashes --no-deps -r requirements-dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY domain domain
COPY projections projections
COPY adapters adapters
COPY api api
COPY sql sql
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# The environment that runs: the runtime lock and the wheel, without pip.
FROM python:3.11-slim-bookworm AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUTF8=1
RUN python -m venv --without-pip /opt/evosense
COPY requirements.lock ./
RUN python -m pip --python /opt/evosense/bin/python install --require-hashes --no-deps -r requirements.lock
COPY --from=wheel /wheels /wheels
RUN python -m pip --python /opt/evosense/bin/python install --no-deps --no-index /wheels/evosense-*.whl

FROM python:3.11-slim-bookworm
# Nothing is installed in a running container: no need for what could.
RUN python -m pip uninstall --yes pip setuptools wheel \
    && groupadd --gid 10001 evosense \
    && useradd --uid 10001 --gid evosense --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin evosense
COPY --from=environment /opt/evosense /opt/evosense
# PYTHONUTF8: the lexicon behind the analyser can't be read in an ASCII locale.
ENV PATH=/opt/evosense/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUTF8=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    EVOSENSE_API_HOST=0.0.0.0 \
    EVOSENSE_API_PORT=8080
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["evosense"]
CMD ["--help"]
