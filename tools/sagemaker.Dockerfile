# An image for tools/sagemaker.py with the environment in it, which saves each job the minutes of installing it.
#   docker build -f tools/sagemaker.Dockerfile -t ACCOUNT.dkr.ecr.REGION.amazonaws.com/recipes:1 .
# Not built or run yet. PyTorch's wheels bring CUDA; from the machine comes the driver alone.
FROM python:3.12-slim-bookworm
# Triton compiles small C files when training starts.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv
ENV UV_PROJECT_ENVIRONMENT=/opt/recipes UV_LINK_MODE=copy
WORKDIR /build
COPY pyproject.toml uv.lock README.md ./
COPY tools tools
RUN uv sync --no-dev --extra cloud
