"""The Spark session that the stream and the backfill run on.

In: TOLLGATE_SPARK_MASTER (default: this machine's cores, at most 2), TOLLGATE_SPARK_JARS (the Kafka connector's jars:
files or folders, separated by colons) and JAVA_HOME. Out: a `SparkSession` that downloads nothing, opens no UI and
logs warnings only. On Kubernetes the SparkApplication gives the master and the image the jars.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import SparkSession

from tollgate.errors import ConfigurationError

_LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%ex{short}
# Said at every start, and nothing can be done about it here.
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
logger.host.name = org.apache.spark.util.Utils
logger.host.level = error
logger.conf.name = org.apache.spark.SparkConf
logger.conf.level = error
# Every batch that takes longer than the trigger's interval, which is how catching up looks.
logger.trigger.name = org.apache.spark.sql.execution.streaming
logger.trigger.level = error
# The Kafka clients log their settings at every batch.
logger.kafka.name = org.apache.kafka
logger.kafka.level = error
"""


def build(name: str, *, memory: str, environ: Mapping[str, str] = os.environ) -> SparkSession:
    """A session called tollgate-`name` with a driver heap of `memory` (like 512m).

    Raises `ConfigurationError` when TOLLGATE_SPARK_JARS names nothing that exists.
    """
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")  # none is used
    scratch = tempfile.mkdtemp(prefix="tollgate-spark-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    log4j = Path(scratch) / "log4j2.properties"
    log4j.write_text(_LOG4J)
    # Python workers start with the driver's interpreter, whatever PATH says.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    settings = {
        "spark.driver.memory": memory,
        # A backfill is over and a batch is small before the second compiler has earned what it costs on two cores.
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
        f" -Dlog4j2.configurationFile={log4j.as_uri()}",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": scratch,
        "spark.sql.warehouse.dir": f"{scratch}/warehouse",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.streaming.minBatchesToRetain": "10",
    }
    if found := jars(environ.get("TOLLGATE_SPARK_JARS", "")):
        settings["spark.jars"] = ",".join(each.as_uri() for each in found)
    master = environ.get("TOLLGATE_SPARK_MASTER", "") or f"local[{min(2, os.cpu_count() or 1)}]"
    builder = SparkSession.builder.appName(f"tollgate-{name}").master(master)
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def jars(text: str) -> list[Path]:
    """The jar files that a colon-separated list of files and folders names, sorted within a folder."""
    found: list[Path] = []
    for part in filter(None, text.split(":")):
        path = Path(part).resolve()
        here = sorted(path.glob("*.jar")) if path.is_dir() else [path]
        if not here or not here[0].is_file():
            raise ConfigurationError(f"TOLLGATE_SPARK_JARS: no jar at {part}")
        found += here
    return found
