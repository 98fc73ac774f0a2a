"""`throughline export --parquet`, read by DuckDB: the rows and values that SQL over the store has."""

import json
import subprocess

import duckdb

from conftest import BINARY, Server, until

# Runs of the demo's agents.
RUNS = 8

TABLES = ("traces", "spans", "decisions", "logs")


def test_tables_are_what_sql_sees(tmp_path):
    demo = Server(tmp_path, ("demo", "--runs", str(RUNS), "--pace", "0"))
    until("the demo's traces", lambda: demo.get("/api/v1/stats")["traces"] >= RUNS)
    demo.stop()
    data = ["--data-dir", str(tmp_path / "data")]
    out = tmp_path / "tables"
    subprocess.run([BINARY, "export", "--parquet", "--out", out, *data], check=True)

    def ours(statement):
        done = subprocess.run(
            [BINARY, "query", "--json", statement, *data], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)["rows"]

    def theirs(statement):
        return [list(row) for row in duckdb.sql(statement).fetchall()]

    for table in TABLES:
        file = out / f"{table}.parquet"
        names = {row[0] for row in theirs(f"DESCRIBE SELECT * FROM '{file}'")}
        described = subprocess.run(
            [BINARY, "query", "--schema", "--json"], capture_output=True, text=True, check=True
        )
        views = json.loads(described.stdout)["tables"]
        assert names == {column["name"] for view in views if view["name"] == table for column in view["columns"]}
        assert theirs(f"SELECT count(*) FROM '{file}'") == ours(f"SELECT count(*) FROM {table}"), table
    spans = f"'{out / 'spans.parquet'}'"
    sums = "SELECT name, count(*), sum(input_tokens)::BIGINT, sum(cost_nano_usd)::BIGINT, min(span_id) FROM {} GROUP BY name ORDER BY name"
    assert theirs(sums.format(spans)) == ours(sums.replace("::BIGINT", "").format("spans"))
    # What is null is null, times are timestamps and JSON is JSON.
    (kind,) = theirs(f"SELECT DISTINCT typeof(start_unix_nano) FROM {spans}")
    assert kind[0].startswith("TIMESTAMP"), kind
    roots = "SELECT count(*) FROM {} WHERE parent_span_id IS NULL"
    assert theirs(roots.format(spans)) == ours(roots.format("spans"))
    models = "SELECT count(DISTINCT attributes ->> '{}') FROM {}"
    assert theirs(models.format("$.\"gen_ai.request.model\"", spans)) == ours(
        models.format("gen_ai.request.model", "spans")
    )
