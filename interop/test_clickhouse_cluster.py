"""The layout for a cluster that `docs/clickhouse.md` tells: no engine in a process can run one, but it can read its
statements, and knows whether the columns are those of a single node."""

import re

from clickhouse_engine import engine, start  # noqa: F401
from conftest import ROOT, until
from test_clickhouse_records import write_config

TABLES = ["spans", "trace_parts", "logs", "metric_points", "decisions", "rollups", "rollup_operations"]


def documented():
    """The statements of the section about clusters."""
    text = (ROOT / "docs" / "clickhouse.md").read_text(encoding="utf-8")
    section = text.split("## On a cluster")[1]
    [block] = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [statement.strip() for statement in block.split(";") if statement.strip()]


def test_the_statements_for_a_cluster_are_read_by_the_engine(tmp_path, engine):  # noqa: F811
    server = start(write_config(tmp_path / "throughline.yaml", engine), tmp_path)
    until("the tables", lambda: engine.ask("EXISTS schema_migrations") == "1"
          and engine.ask("SELECT max(version) FROM schema_migrations") == "4")
    server.stop()
    local, over_all, noted = documented()
    for table in TABLES:
        # What a single node's `SHOW CREATE TABLE` tells between the parentheses goes where the dots are.
        shown = engine.ask(f"SELECT create_table_query FROM system.tables WHERE database = 'default' AND name = '{table}' "
                           "FORMAT TSVRaw")
        columns = shown[shown.index("(") + 1:shown.rindex(") ENGINE")]
        order = re.search(r"ORDER BY (\(.*?\))", shown)[1]
        partition = re.search(r"PARTITION BY (.*?) ORDER BY", shown)[1]
        statement = local.replace("spans", table).replace("(…)", f"({columns})")
        statement = re.sub(r"PARTITION BY .* ORDER BY .*", f"PARTITION BY {partition} ORDER BY {order}", statement)
        read = engine.ask(f"EXPLAIN AST {statement}")
        assert "ReplicatedReplacingMergeTree" in read and "PARTITION" not in read.split("Storage definition")[0]
        assert "Distributed" in engine.ask("EXPLAIN AST " + over_all.replace("spans", table))
    assert "InsertQuery" in engine.ask(f"EXPLAIN AST {noted}")
    versions = [int(version) for version in re.findall(r"\((\d+)\)", noted)]
    assert versions == [1, 2, 3, 4], "all versions that the server knows"
