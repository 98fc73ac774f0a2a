"""ClickHouse's engine (chdb) behind the part of its HTTP interface that Throughline uses.

    python clickhouse_shim.py PORT DIRECTORY

A statement in `query`, its `database`, rows in the body, values as `param_NAME`; other names are settings. An error of the
engine is answered with 500 and its text, as the server does.
"""

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from chdb.session import Session

# Settings that say how rows are inserted or written; the engine takes them with the statement.
SETTINGS = {
    "async_insert", "insert_deduplicate", "insert_deduplication_token",
    "output_format_json_quote_64bit_integers", "precise_float_parsing",
}


def unescape(text):
    """A text as the server reads it from an address: as in a file of tab-separated values."""
    known = {"t": "\t", "n": "\n", "r": "\r", "0": "\0"}
    return re.sub(r"\\(.)", lambda found: known.get(found[1], found[1]), text, flags=re.DOTALL)


class Engine:
    """One session: the engine's state is the process's, so statements run one by one."""

    def __init__(self, directory):
        self.session = Session(directory)
        self.lock = threading.Lock()
        self.set, self.database = {}, None

    def run(self, database, query, values, settings, rows):
        # What `{name:Type}` stands for in the server, with the same parse of the text as that type.
        def literal(found):
            name, kind = found[1], found[2]
            value = unescape(values[name]) if kind == "String" else values[name]
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            return f"CAST('{quoted}' AS {kind})"
        statement = re.sub(r"\{(\w+):([\w()]+)\}", literal, query)
        with self.lock:
            if self.database != database:
                self.session.query(f"USE {database}")
                self.database = database
            for name, value in settings.items():
                # A server takes them with the statement; here each is a statement of its own.
                if self.set.get(name) != value:
                    self.session.query(f"SET {name} = '{value}'")
                    self.set[name] = value
            if rows:
                return self.session.query(f"{statement}\n{rows}").bytes()
            return self.session.query(statement).bytes()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave together: in two packets the second waits for the acknowledgement of the first, 40 ms.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        rows = self.rfile.read(length).decode()
        options = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        values = {name[6:]: value for name, value in options.items() if name.startswith("param_")}
        settings = {name: value for name, value in options.items() if name in SETTINGS}
        try:
            database = options.get("database", "default")
            status, answer = 200, self.server.engine.run(database, options["query"], values, settings, rows)
        except Exception as error:  # whatever the engine says is the answer
            status, answer = 500, str(error).encode()
        answer = bytes(answer or b"")
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.engine = Engine(sys.argv[2])
    server.serve_forever()
