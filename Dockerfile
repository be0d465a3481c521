# The app on a CPU: docker build -t als . && docker run --rm -p 7860:7860 als
FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY . .
RUN pip install . && rm -rf /src && useradd --create-home --uid 1000 als
# A number, which Kubernetes can tell is not root.
USER 1000
WORKDIR /home/als
EXPOSE 7860
CMD ["als", "app", "--host", "0.0.0.0"]
