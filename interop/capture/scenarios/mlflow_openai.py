"""MLflow's autologging of `openai` below a traced function, exported over OTLP."""

import os
import tempfile

os.environ["MLFLOW_TRACKING_URI"] = tempfile.mkdtemp()
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = (
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces")
os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
from setup import captured, chat_twice

import mlflow
from mlflow.entities import SpanType

mlflow.set_experiment("weather")
mlflow.openai.autolog()


@mlflow.trace(span_type=SpanType.TOOL, name="get_weather")
def get_weather(city):
    return {"celsius": 21}


@mlflow.trace(span_type=SpanType.AGENT, name="forecaster")
def forecaster(question):
    mlflow.update_current_trace(metadata={"mlflow.trace.session": "s-42",
                                          "mlflow.trace.user": "u-7"})
    get_weather("Bern")
    return chat_twice().choices[0].message.content


forecaster("What is the weather in Bern?")
mlflow.flush_trace_async_logging()
captured("mlflow-skinny", "openai")
