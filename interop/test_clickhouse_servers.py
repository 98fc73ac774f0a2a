"""Names of servers in ClickHouse are one data directory's each; and tables of earlier versions, filled, are brought
up to date."""

import shutil

import pytest

from clickhouse_engine import engine, start, store, store_text  # noqa: F401
from conftest import until
from test_clickhouse import send
from test_clickhouse_records import metric, write_config

# The tables as versions 1 and 2 made them.
FIRST = [
    """CREATE TABLE old.spans(
        day Date, segment LowCardinality(String), key Int64, trace_id String, span_id String,
        parent_span_id String, trace_state String, flags UInt32, name LowCardinality(String),
        kind LowCardinality(String), status LowCardinality(String), status_message String,
        start_unix_nano UInt64, end_unix_nano UInt64, service LowCardinality(String),
        attributes String CODEC(ZSTD(1)), dropped_attributes_count UInt32,
        events String CODEC(ZSTD(1)), dropped_events_count UInt32,
        links String CODEC(ZSTD(1)), dropped_links_count UInt32,
        resource String CODEC(ZSTD(1)), scope String CODEC(ZSTD(1)), version UInt64)
     ENGINE = ReplacingMergeTree(version) PARTITION BY day ORDER BY (trace_id, segment, key)
     SETTINGS non_replicated_deduplication_window = 1000""",
    """CREATE TABLE old.trace_parts(
        day Date, segment LowCardinality(String), trace_id String, is_carried UInt8,
        name String, start_unix_nano UInt64, end_unix_nano UInt64, span_count UInt64,
        error_count UInt64, cost_nano_usd UInt64, summary String CODEC(ZSTD(1)), version UInt64)
     ENGINE = ReplacingMergeTree(version) PARTITION BY day ORDER BY (trace_id, segment)
     SETTINGS non_replicated_deduplication_window = 1000""",
    """CREATE TABLE old.schema_migrations(
        version UInt32, applied_at DateTime DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY version""",
]
SECOND = [
    """ALTER TABLE old.spans ADD COLUMN server LowCardinality(String),
        MODIFY ORDER BY (trace_id, segment, key, server)""",
    """ALTER TABLE old.trace_parts ADD COLUMN server LowCardinality(String),
        MODIFY ORDER BY (trace_id, segment, server)""",
    "ALTER TABLE old.trace_parts " + ", ".join(
        f"ADD COLUMN {name} Array(String) MATERIALIZED JSONExtract(summary, '{name}', 'Array(String)')"
        for name in ("agents", "sessions", "users", "models", "services")),
]


def columns(engine, table):  # noqa: F811
    return engine.ask(f"SELECT arrayStringConcat(groupArray(name), ', ') FROM system.columns WHERE database = 'old' "
                      f"AND table = '{table}' AND default_kind = '' AND name != 'server'").strip('"')


@pytest.mark.parametrize("version", [1, 2])
def test_filled_tables_of_earlier_versions_are_brought_up_to_date(tmp_path, engine, version):  # noqa: F811
    config, data_dir = write_config(tmp_path / "now.yaml", engine), tmp_path / "data"
    server = start(config, tmp_path)
    sent = send(server, 20)
    until("the mirror", lambda: store(config, data_dir, "check", "--json")[0] == 0)
    server.stop()
    engine.ask("CREATE DATABASE old")
    for statement in FIRST + (SECOND if version == 2 else []):
        engine.ask(statement)
    for table in ("spans", "trace_parts"):
        names = columns(engine, table)
        engine.ask(f"INSERT INTO old.{table} ({names}) SELECT {names} FROM default.{table} FINAL")
    for number in range(1, version + 1):
        engine.ask(f"INSERT INTO old.schema_migrations (version) VALUES ({number})")
    # What is there is of the server without a name: the same rows again are the same rows.
    old = write_config(tmp_path / f"old-{version}.yaml", engine, database="old")
    server = start(old, tmp_path)
    until("the tables", lambda: engine.ask("SELECT max(version) FROM old.schema_migrations") == "4")
    until("the rest", lambda: metric(server, "throughline_clickhouse_rows_total") == sent)
    code, [found], _ = until("rollups", lambda: (told := store(old, data_dir, "check", "--json"))[0] == 0 and told)
    assert found.pop("rollups") > 0 and found.pop("rollup_operations") > 0
    assert (code, found) == (0, {
        "segments": 1, "spans": sent, "logs": 0, "metric_points": 0, "decisions": 0, "missing": 0,
        "differing": 0, "extra": 0, "is_good": True})
    assert engine.ask("SELECT count() FROM old.spans FINAL") == str(sent)
    server.stop()


def test_a_name_belongs_to_one_data_directory(tmp_path, engine):  # noqa: F811
    places = {name: tmp_path / name for name in ("first", "second")}
    for place in places.values():
        place.mkdir()
    config = write_config(tmp_path / "throughline.yaml", engine, more="    server: eu-1\n")
    first = start(config, places["first"])
    sent = send(first, 5)
    until("the mirror", lambda: engine.ask("SELECT count() FROM spans FINAL") == str(sent))
    second = start(config, places["second"])
    send(second, 3)
    until("the refusal", lambda: metric(second, "throughline_clickhouse_failures_total") >= 2)
    log = (places["second"] / "server.log").read_text(encoding="utf-8")
    assert "eu-1" in log and "take-over" in log
    assert engine.ask("SELECT count() FROM spans FINAL") == str(sent)
    assert metric(second, "throughline_clickhouse_failing") == 1
    # Ingest goes on all the same.
    assert len(second.get("/api/v1/traces")["items"]) == 3

    # A restored directory has no position: it takes the name over, and sends everything again.
    first.stop()
    second.stop()
    restored = tmp_path / "restored"
    shutil.copytree(places["first"], restored)
    for leftover in restored.glob("data/clickhouse.db*"):
        leftover.unlink()
    server = start(config, restored)
    until("the refusal", lambda: metric(server, "throughline_clickhouse_failures_total") >= 1)
    server.stop()
    code, _, error = store_text(config, restored / "data", "take-over")
    assert code == 0, error
    server = start(config, restored)
    sent += send(server, 2)
    until("the mirror", lambda: store(config, restored / "data", "check", "--json")[0] == 0
          and engine.ask("SELECT count() FROM spans FINAL") == str(sent))
    server.stop()
    # Who had the name before is refused now.
    first = start(config, places["first"])
    until("the refusal", lambda: metric(first, "throughline_clickhouse_failures_total") >= 1)
    first.stop()
