"""An agent in plain Python that records its decisions and hands over to a human when it is told to.

It needs `requests` and nothing else: directives come as server-sent events, decisions go to the API.

    python agent.py http://127.0.0.1:4319 --service tickets

docs/directives.md has the protocol, docs/decisions.md the fields of a decision.
"""

import argparse
import json
import os
import sys
import threading
import time
import uuid
from urllib.parse import quote

import requests

# A connection on which nothing comes for so long, not even a comment, is taken for dead, seconds.
SILENCE = 60
# Longest pause before a new connection, seconds.
LONGEST_PAUSE = 60


class Directives:
    """Listens in the background; `handover` and `stop` say what holds now."""

    def __init__(self, server, service, agent, instance_id, key=None, record=None,
                 session_id=None, workflow_id=None):
        self.server, self.instance_id = server.rstrip("/"), instance_id
        # All that a target says must hold; work without a session is not meant by one that names a session.
        self.own = {"service": service, "instance_id": instance_id, "agent_id": agent,
                    "session_id": session_id, "workflow_id": workflow_id}
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.record = record
        self.last_id = None
        self.known = {}
        self.lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def handover(self):
        """To whom the agent is to hand over, or None."""
        return self._newest("hand_over", "to")

    def stop(self):
        """Whether the agent is to stop."""
        return self._newest("stop", "type") is not None

    def _newest(self, kind, field):
        now = time.time_ns()
        with self.lock:
            live = [one for one in self.known.values() if int(one["expires_at_ns"]) > now]
        revoked = {one["action"].get("directive_id") for one in live if one["action"]["type"] == "revoke"}
        live = [one for one in live if one["action"]["type"] == kind and one["id"] not in revoked]
        if not live:
            return None
        newest = max(live, key=lambda one: int(one["issued_at_ns"]))
        return newest["action"].get(field) or "human"

    def _run(self):
        pause = 1
        while True:
            try:
                self._listen()
                pause = 1
            except requests.RequestException:
                pause = min(pause * 2, LONGEST_PAUSE)
            time.sleep(pause)

    def _listen(self):
        headers = dict(self.headers, accept="text/event-stream")
        if self.last_id:
            headers["last-event-id"] = self.last_id
        asked = {name: self.own[name] for name in ("service", "instance_id")}
        with requests.get(f"{self.server}/api/v1/directives", params=asked, headers=headers,
                          stream=True, timeout=(10, SILENCE)) as answer:
            answer.raise_for_status()
            event = {}
            for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                if line:
                    name, _, value = line.partition(":")
                    event[name] = value.removeprefix(" ")
                    continue
                if event.get("event") == "directive":
                    self._read(event.get("data", ""))
                self.last_id = event.get("id", self.last_id)
                event = {}

    def _read(self, text):
        """Hears a directive; one that cannot be read is told and passed over, the next may say to stop."""
        try:
            directive = json.loads(text)
            its_id, kind = str(directive["id"]), str(directive["action"]["type"])
            expires, _ = int(directive["expires_at_ns"]), int(directive["issued_at_ns"])
            target = dict(directive.get("target") or {})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            print(f"a directive cannot be read ({error!r}): {text[:200]}", file=sys.stderr, flush=True)
            return
        if all(target.get(name) in (None, value) for name, value in self.own.items()):
            self._hear(directive, its_id, kind, expires)

    def _hear(self, directive, its_id, kind, expires):
        ack = {"instance_id": self.instance_id, "status": "applied"}
        if kind not in ("hand_over", "stop", "revoke"):
            ack["status"] = "unsupported"
        elif expires <= time.time_ns():
            ack["status"] = "expired"
        else:
            with self.lock:
                is_new = its_id not in self.known
                self.known[its_id] = directive
            if is_new and self.record:
                ack["decision_id"] = self.record(
                    "directive", kind, directive.get("reason", ""),
                    {"throughline.directive.id": its_id,
                     "throughline.directive.evidence": directive.get("evidence", [])})
        requests.post(f"{self.server}/api/v1/directives/{quote(its_id, safe='')}/ack",
                      json=ack, headers=self.headers, timeout=10).raise_for_status()


class Agent:
    """Answers tickets until it is told to hand over or to stop."""

    def __init__(self, server, service, key=None):
        self.server, self.service, self.name = server.rstrip("/"), service, "tickets"
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.trace_id, self.instance_id = os.urandom(16).hex(), str(uuid.uuid4())
        self.directives = Directives(server, service, self.name, self.instance_id, key, self.decide)

    def decide(self, stage, action, reason, attributes=None):
        """Records a decision, and says its id."""
        decision_id = str(uuid.uuid4())
        requests.post(f"{self.server}/api/v1/decisions", headers=self.headers, timeout=10, json={
            "decision_id": decision_id, "trace_id": self.trace_id, "stage": stage,
            "timestamp_ns": str(time.time_ns()), "agent_id": self.name, "service": self.service,
            "instance_id": self.instance_id, "decision": {"action": action, "reason": reason},
            **(attributes or {}),  # what the schema does not have becomes an attribute
        }).raise_for_status()
        return decision_id

    def run(self, tickets, pause=0.0):
        """Answers tickets one by one; what it said to each."""
        for number, ticket in enumerate(tickets):
            to = self.directives.handover()
            if to or self.directives.stop():
                whom = to or "nobody"
                self.decide("handover", f"hand over to {whom}", f"told so before ticket {number}")
                yield f"{ticket}: handed over to {whom}"
                return
            answer = "refund" if "money" in ticket else "apologise"
            self.decide("act", answer, f"ticket {number} says {ticket!r}")
            yield f"{ticket}: {answer}"
            time.sleep(pause)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("--service", default="tickets")
    parser.add_argument("--key", default=os.environ.get("THROUGHLINE_API_KEY"))
    parser.add_argument("--tickets", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two tickets")
    args = parser.parse_args()
    agent = Agent(args.server, args.service, args.key)
    words = ["my money is gone", "it does not start"]
    for said in agent.run((words[at % 2] for at in range(args.tickets)), args.pause):
        print(said, flush=True)


if __name__ == "__main__":
    main()
