# docker build -t cifar-lab . && docker run --rm -p 127.0.0.1:8501:8501 -v cifar-lab:/lab cifar-lab
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 lab && install -d -o lab /lab
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY app.py .
COPY .streamlit/config.toml .streamlit/config.toml
COPY cifar_core cifar_core
COPY pages pages

USER 1000
ENV CIFAR_LAB_HOME=/lab PYTHONUNBUFFERED=1
VOLUME /lab
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["streamlit", "run", "app.py", "--server.address=0.0.0.0"]
