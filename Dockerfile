# The two images that contestants run in, `cpu` and `cuda`: a base and the locked packages, without any code of this
# project; code and data are mounted. `pgolf image build NAME` builds them: it collects the wheels, sets BASE to the
# digest in images/NAME/pins.yaml or to the image made from --base, and builds without network. Uses only the classic
# builder, no BuildKit feature. pip runs without the base's settings: no variable, no configuration file, no PYTHONPATH.

ARG BASE

# Install into a separate root, so that the wheel files do not end up in the image
FROM ${BASE} AS packages
LABEL pgolf.stage=packages
USER root
COPY wheels/ /wheels/
COPY requirements.lock /wheels/requirements.lock
RUN env -i PATH="$PATH" PIP_CONFIG_FILE=/dev/null PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
    python3 -I "$(echo /wheels/pip-*.whl)/pip" install \
    --no-index --find-links /wheels --require-hashes --no-deps --ignore-installed --no-cache-dir \
    --disable-pip-version-check --no-warn-script-location --root /stage --requirement /wheels/requirements.lock

# Uninstall what the base has of these packages first, so that no package is there in two versions
FROM ${BASE} AS runtime
USER root
COPY requirements.lock /tmp/requirements.lock
RUN if python3 -I -m pip --version >/dev/null 2>&1; then \
        env -i PATH="$PATH" PIP_CONFIG_FILE=/dev/null PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
            python3 -I -m pip uninstall --yes --quiet --requirement /tmp/requirements.lock; \
    fi; rm /tmp/requirements.lock
COPY --from=packages /stage/ /
ENTRYPOINT []
CMD ["sleep", "infinity"]
USER 10001:10001

FROM runtime AS cpu

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
